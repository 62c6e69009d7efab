"""The commented YAML file that `cpro genconfig` writes."""

import json
import os
import secrets
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from .duration import Duration
from .faults import Path
from .model import TLS, CommandBlock, Exports, FeatureRedis, Settings
from .schema import Field, fields_of
from .size import Size

_HEAD: Final = """\
# Settings of cpro. Lines that start with "#" show the defaults; every setting is described in docs/settings.md.
# Check a change with `cpro checkconfig -c FILE`; `cpro centrifugoconfig -c FILE` prints Centrifugo's side.
"""
_EXAMPLE: Final = """\
enabled: true
default:                # one bucket shared by all operations without buckets of their own
  enabled: true
  buckets: [{interval: 1s, rate: 60}]
publish:
  enabled: true
  buckets: [{interval: 1s, rate: 10}]
  # namespace_overrides: [{namespace_name: chat, buckets: [{interval: 1s, rate: 20}]}]
# rpc:
#   enabled: true
#   buckets: [{interval: 1s, rate: 20}]
#   method_overrides: [{method: search, buckets: [{interval: 1m, rate: 30}]}]
"""
_EXAMPLE_BLOCK: Final = ("client", "rate_limit", "user_command")
_EXPORTS: Final = """\
# export:
#   operations: {enabled: true}
#   connections: {enabled: true, http_headers: [User-Agent]}
#   subscriptions: {enabled: true}
#   publications: {enabled: true}
"""
_SECRETS: Final[tuple[Path, ...]] = (("secret",), ("proxy", "secret"), ("http_api", "key"))


def starter_config() -> str:
    values = {path: secrets.token_urlsafe(32) for path in _SECRETS}
    return _HEAD + "\n".join(_block(Settings, (), values)) + "\n"


def write_new_private(path: str, text: str) -> None:
    """Creates the file for its owner only; FileExistsError rather than overwriting or following a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask
        file.write(text)


def _block(block: type[msgspec.Struct], path: Path, values: Mapping[Path, str]) -> Iterator[str]:
    for field in fields_of(block).values():
        here = (*path, field.name)
        if not path:
            yield ""
        yield from _entry(field, here, "  " * len(path), values)


def _entry(field: Field, path: Path, indent: str, values: Mapping[Path, str]) -> Iterator[str]:
    yield from textwrap.wrap(_sentence(field), 110, initial_indent=indent + "# ", subsequent_indent=indent + "# ")
    if path in values:
        yield f"{indent}{field.name}: {values[path]}"
    elif path == _EXAMPLE_BLOCK:
        yield f"{indent}{field.name}:"
        yield from textwrap.indent(_EXAMPLE, indent + "  ").splitlines()
    elif field.block is Exports:
        yield from textwrap.indent(_EXPORTS, indent).splitlines()
    elif field.block is None or issubclass(field.block, (TLS, CommandBlock, FeatureRedis)):
        yield f"{indent}# {field.name}: {_default(field)}"
    else:
        yield f"{indent}{field.name}:"
        yield from _block(field.block, path, values)


def _sentence(field: Field) -> str:
    return f"{field.description} ({' | '.join(field.choices)})" if field.choices else field.description


def _default(field: Field) -> str:
    return "{}" if field.block is not None else default_text(field.default)


def default_text(value: Any) -> str:  # noqa: ANN401 - any setting
    """A default as it would stand in a YAML file."""
    if isinstance(value, Duration | Size):
        return str(value)
    if isinstance(value, str):
        plain = value[:1].isalnum() or value.startswith(("/", "./"))
        return value if plain else json.dumps(value)
    return json.dumps(value)
