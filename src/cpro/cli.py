"""The commands. Each says what is wrong in one line per fault and leaves the work to its module."""

import json
import os
import platform
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec

import click

from cpro import __version__
from cpro.config.load import Loaded
from cpro.errors import ConfigError, CproError

if TYPE_CHECKING:
    from cpro.analytics.query import Format

P = ParamSpec("P")

_CONFIG: Final = click.option("-c", "--config", metavar="FILE", help="Settings: .yaml, .yml, .json or .toml.")


def _clean(command: Callable[P, None]) -> Callable[P, None]:
    """Errors that cpro raises on purpose are one line each on stderr, exit 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ConfigError as error:
            _fail(*error.faults)
        except CproError as error:
            _fail(f"cpro: {error}")

    return run


def _fail(*lines: str) -> None:
    for line in lines:
        click.echo(line, err=True)
    sys.exit(1)


def _load(path: str | None) -> Loaded:
    from cpro.plugins.load import load_configured  # the other commands start without plugins

    loaded, _ = load_configured(path, os.environ)
    _warn(loaded)
    return loaded


def _warn(loaded: Loaded) -> None:
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Throttling, analytics and user status beside an unchanged Centrifugo."""


@main.command()
@_CONFIG
@_clean
def serve(config: str | None) -> None:
    """Run everything; without a file, with defaults."""
    from cpro.run import supervisor  # the other commands start without the server

    sys.exit(supervisor.serve(config))


@main.command()
@_CONFIG
@_clean
def checkconfig(config: str | None) -> None:
    """Validate the settings: a line per fault, warnings on stderr."""
    try:
        _load(config)
    except ConfigError as error:
        for fault in error.faults:
            click.echo(fault)
        sys.exit(1)


@main.command()
@click.option("-o", "--output", metavar="FILE", default="cpro.yaml", show_default=True, help="File to create.")
@_clean
def genconfig(output: str) -> None:
    """Write a commented starter file with random secrets."""
    from cpro.config.starter import starter_config, write_new_private

    if not output.endswith((".yaml", ".yml")):
        _fail(f"{output}: is written as YAML: name it .yaml or .yml")
    try:
        write_new_private(output, starter_config())
    except FileExistsError:
        _fail(f"{output}: is there already, and is not overwritten")
    except (OSError, ValueError) as error:
        _fail(f"{output}: can't be written: {getattr(error, 'strerror', None) or 'not a path'}")
    click.echo(f"{output}: written; it holds secrets, so keep it private", err=True)


@main.command()
@_CONFIG
@_clean
def centrifugoconfig(config: str | None) -> None:
    """Print the part of Centrifugo's configuration that points it at this cpro."""
    from cpro.config.centrifugo import centrifugo_config
    from cpro.plugins.load import load_configured

    loaded, plugins = load_configured(config, os.environ)
    _warn(loaded)
    click.echo(json.dumps(centrifugo_config(loaded.settings, plugins.taken), indent=2))


@main.command()
@_CONFIG
@_clean
def plugins(config: str | None) -> None:
    """List the plugins found and what each registers; exit 1 if one can't be used."""
    from cpro.plugins.listing import list_plugins

    lines, all_good = list_plugins(config, os.environ)
    for line in lines:
        click.echo(line)
    sys.exit(0 if all_good else 1)


@main.command()
@_CONFIG
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.argument("sql")
@_clean
def query(config: str | None, form: "Format", sql: str) -> None:
    """Run a question in SQL on the analytics, read-only."""
    from cpro.run.asking import run_query

    click.echo(run_query(_load(config).settings, sql, form), nl=False)


@main.group()
def analytics() -> None:
    """Look after analytics."""


@analytics.command()
@_CONFIG
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@_clean
def status(config: str | None, form: str) -> None:
    """Journal size, and how far each sink is; exit 1 if one is failing."""
    from cpro.run.asking import read_status, status_lines

    state = read_status(_load(config).settings)
    lines, is_well = status_lines(state)
    for line in [json.dumps(state)] if form == "json" else lines:
        click.echo(line)
    sys.exit(0 if is_well else 1)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"cpro {__version__} (Python {platform.python_version()})")
