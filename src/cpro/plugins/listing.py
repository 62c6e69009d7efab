"""What `cpro plugins` says: every plugin found, and what it registers or why it can't be used."""

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any

from cpro.config.load import read_plugin_options
from cpro.errors import PluginError
from cpro.extension import OperationType, Sink
from cpro.plugins.check import check_clashes, check_sinks
from cpro.plugins.load import Collected, collect_one, find, label, load_plugin


def list_plugins(path: str | None, environ: Mapping[str, str]) -> tuple[list[str], bool]:
    """Lines for people, and whether all plugins can be used with the options at `path`."""
    entries = find()
    options = read_plugin_options(path, environ, [entry.name for entry in entries])
    lines: list[str] = []
    taken: list[tuple[str, OperationType]] = []
    sinks: list[tuple[str, str, Sink]] = []
    names: set[str] = set()
    failed = False
    for entry in entries:
        lines.append(f"{entry.name} ({label(entry)})")
        try:
            collected = _collect(entry, options, names, taken, sinks)
        except PluginError as error:
            failed = True
            lines.append(f"  failed: {error.reason}")
        else:
            lines += [f"  {line}" for line in _parts(collected)]
    return lines or ["no plugins are installed"], not failed


def _collect(
    entry: EntryPoint,
    options: Mapping[str, Mapping[str, Any]],
    names: set[str],
    taken: list[tuple[str, OperationType]],
    sinks: list[tuple[str, str, Sink]],
) -> Collected:
    """One plugin, which must go together with those before; `names`, `taken` and `sinks` are theirs, and grow."""
    if entry.name in names:
        raise PluginError(entry.name, "another package has a plugin of this name")
    names.add(entry.name)
    collected = collect_one(load_plugin(entry), options.get(entry.name, {}))
    check_clashes([*taken, *collected.operations])
    check_sinks([*sinks, *collected.sinks])
    taken.extend(collected.operations)
    sinks.extend(collected.sinks)
    return collected


def _parts(collected: Collected) -> Iterator[str]:
    for _, operation in collected.operations:
        yield f"operation {operation.name}: {', '.join(_takes(operation))}"
    yield from (f"sink {name}" for name in collected.sink_names)
    yield from (f"hook {hook}" for hook in collected.plugins[0].hooks)


def _takes(operation: OperationType) -> Iterator[str]:
    yield from (f"RPC method {name}" for name in operation.methods)
    yield from (f"RPC namespace {name}" for name in operation.namespaces)
    yield from (f"event {name}" for name in operation.events)
