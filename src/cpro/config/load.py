"""File, environment and flags -> one validated, frozen snapshot of the settings."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as File
from types import MappingProxyType
from typing import Any, Final

from cpro.errors import ConfigError

from .documents import Document, read_document
from .environment import PREFIX, lay, lay_environment
from .faults import DEFAULTS, Faults, Origin
from .model import Settings
from .read import Reader
from .validate import check_settings
from .views import changes_needing_restart, redacted

__all__ = ["Loaded", "changes_needing_restart", "load", "read_plugin_options", "redacted"]

PLUGINS_VARIABLE: Final = PREFIX + "PLUGINS"
NONE: Final[Mapping[str, object]] = MappingProxyType({})


@dataclass(frozen=True)
class Loaded:
    settings: Settings
    warnings: list[str]  # whole lines, as faults
    source: str  # the file, or "defaults"


def load(
    path: str | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] = NONE,
    operations: Iterable[str] = (),
    plugins: Collection[str] = (),
) -> Loaded:
    """Reads and validates; `overrides` are flags by dotted path, `plugins` those installed, `operations` what they add.

    Raises ConfigError with every fault, each a line `FILE: key.path: what is wrong`.
    """
    extra = frozenset(operations)
    faults = Faults(path or DEFAULTS)
    tree = _read_file(path, faults) if path else Document()
    lay_environment(tree, environ, faults, extra)
    for key, value in overrides.items():
        path_of_key = tuple(key.split("."))
        lay(tree, path_of_key, value, Origin(f"command line: {key}", path_of_key), faults)
    settings = Reader(faults, extra, plugins).read_settings(tree)
    check_settings(settings, faults)
    if faults.lines:
        raise ConfigError(list(dict.fromkeys(faults.lines)))
    return Loaded(settings, list(dict.fromkeys(faults.warnings)), faults.source)


def read_plugin_options(
    path: str | None, environ: Mapping[str, str], plugins: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The options of installed plugins and nothing else: `load` needs to know first which operations they add.

    Whatever is wrong is left out here; `load` says it.
    """
    faults = Faults(path or DEFAULTS)
    tree = _read_file(path, faults) if path else Document()
    lay_environment(tree, {name: text for name, text in environ.items() if name == PLUGINS_VARIABLE}, faults)
    return Reader(faults, plugins=plugins).read_settings({"plugins": tree.get("plugins")}).plugins


def _read_file(path: str, faults: Faults) -> Document:
    try:
        text = File(path).read_text("utf-8-sig")
    except UnicodeDecodeError:
        faults.fault((), "is not UTF-8 text")
    except (OSError, ValueError) as error:
        faults.fault((), f"can't be read: {getattr(error, 'strerror', None) or 'not a path'}")
    else:
        return read_document(text, path, faults)
    return Document()
