"""Finds plugins, loads them and asks their hooks: once, at start, in every process that needs to know."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise
from typing import Any

from pluggy import PluginManager, PluginValidationError

from cpro import hookspecs
from cpro.config.centrifugo import Taken
from cpro.config.load import Loaded, load, read_plugin_options
from cpro.errors import PluginError
from cpro.extension import Identify, Observe, OperationType, PluginConfig, Sink
from cpro.limits.rules import Addition
from cpro.plugins.check import check_clashes, check_sinks, compile_addition

GROUP = "cpro"


class Plugin:
    """A loaded plugin: its name, and its hooks, which a manager of its own calls."""

    def __init__(self, name: str, implementation: object) -> None:
        """Raises PluginError when its hooks aren't those of `hookspecs`."""
        self.name = name
        self._manager = PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        try:
            self._manager.register(implementation, name)
            self._manager.check_pending()
        except PluginValidationError as error:
            raise PluginError(name, " ".join(str(error).split())) from error
        self.hooks = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(implementation) or ()))
        if not self.hooks:
            raise PluginError(name, "has no hook: mark its functions with cpro.plugins.hookimpl")

    def call(self, hook: str, argument: object) -> object:
        """What its hook returns, or None where it has none; raises what the hook raises."""
        name = "config" if isinstance(argument, PluginConfig) else "app"
        results = getattr(self._manager.hook, hook)(**{name: argument})
        return results[0] if results else None

    def ask(self, hook: str, config: PluginConfig) -> object:
        """The same while it is collected: whatever goes wrong is a PluginError."""
        try:
            return self.call(hook, config)
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(self.name, f"{hook}: {_told(error)}") from error


@dataclass(frozen=True)
class Collected:
    """All plugins, and what their hooks returned, each part with the name of its plugin."""

    plugins: tuple[Plugin, ...] = ()
    operations: tuple[tuple[str, OperationType], ...] = ()
    additions: tuple[Addition, ...] = ()
    """The same operations, as limits need to know them."""
    identifiers: tuple[tuple[str, Identify], ...] = ()
    observers: tuple[tuple[str, Observe], ...] = ()
    sinks: tuple[tuple[str, str, Sink], ...] = ()
    """Each with the name of its plugin and its own. Workers have none."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(plugin.name for plugin in self.plugins)

    @property
    def operation_names(self) -> tuple[str, ...]:
        return tuple(operation.name for _, operation in self.operations)

    @property
    def sink_names(self) -> tuple[str, ...]:
        return tuple(name for _, name, _ in self.sinks)

    @property
    def taken(self) -> Taken:
        """What Centrifugo must send, for `cpro centrifugoconfig`."""
        types = [operation for _, operation in self.operations]
        return Taken(
            events=frozenset(event for one in types for event in one.events),
            rpc_methods=tuple(method for one in types for method in one.methods),
            rpc_namespaces=tuple(name for one in types for name in one.namespaces),
            rpc_operations=frozenset(one.name for one in types if one.methods or one.namespaces),
        )


def find() -> tuple[EntryPoint, ...]:
    """The plugins installed here, by name."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: entry.name))


def load_plugin(entry: EntryPoint) -> Plugin:
    """Import one plugin; raises PluginError."""
    try:
        implementation = entry.load()
    except (Exception, SystemExit) as error:
        raise PluginError(entry.name, f"can't be loaded: {_told(error)}") from error
    return Plugin(entry.name, implementation)


def load_all(entries: Iterable[EntryPoint]) -> list[Plugin]:
    """Import plugins; raises PluginError for the first that can't be, or when two have one name."""
    entries = tuple(entries)
    for before, after in pairwise(entries):
        if before.name == after.name:
            raise PluginError(after.name, f"has its name twice: {label(before)} and {label(after)}")
    return [load_plugin(entry) for entry in entries]


def collect(
    plugins: Iterable[Plugin], options: Mapping[str, Mapping[str, Any]], *, with_sinks: bool = True
) -> Collected:
    """Ask the hooks; raises PluginError when what a plugin returns isn't what the hook promises, or clashes."""
    places = {name: place for place, name in enumerate(options)}
    ordered = sorted(plugins, key=lambda plugin: (places.get(plugin.name, len(places)), plugin.name))
    parts = [collect_one(plugin, options.get(plugin.name, {}), with_sinks=with_sinks) for plugin in ordered]
    collected = Collected(
        plugins=tuple(ordered),
        operations=tuple(one for part in parts for one in part.operations),
        additions=tuple(one for part in parts for one in part.additions),
        identifiers=tuple(one for part in parts for one in part.identifiers),
        observers=tuple(one for part in parts for one in part.observers),
        sinks=tuple(one for part in parts for one in part.sinks),
    )
    check_clashes(collected.operations)
    check_sinks(collected.sinks)
    return collected


def collect_one(plugin: Plugin, options: Mapping[str, Any], *, with_sinks: bool = True) -> Collected:
    """The same for one plugin alone."""
    config = PluginConfig(plugin.name, options)
    operations = _operations(plugin, config)
    return Collected(
        plugins=(plugin,),
        operations=tuple((plugin.name, operation) for operation in operations),
        additions=tuple(compile_addition(plugin.name, operation) for operation in operations),
        identifiers=_identifiers(plugin, config),
        observers=_observers(plugin, config),
        sinks=_sinks(plugin, config) if with_sinks else (),
    )


def load_configured(path: str | None, environ: Mapping[str, str]) -> tuple[Loaded, Collected]:
    """The configuration together with the plugins that it is for; raises ConfigError or PluginError."""
    entries = find()
    names = [entry.name for entry in entries]
    options = read_plugin_options(path, environ, names) if names else {}
    collected = collect(load_all(entries), options)
    return load(path, environ, operations=collected.operation_names, plugins=names), collected


def load_again(
    options: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    operations: Sequence[str],
    sinks: Sequence[str] | None = None,
) -> Collected:
    """In a process of the service: what the supervisor has loaded. PluginError when it isn't the same any more.

    Without the names of `sinks` those are not asked for.
    """
    collected = collect(load_all(find()), options, with_sinks=sinks is not None)
    same_sinks = sinks is None or collected.sink_names == sinks
    if collected.names != names or collected.operation_names != operations or not same_sinks:
        changed = set(collected.names) ^ set(names) or set(names)
        raise PluginError(", ".join(sorted(changed)), "is not what it was when the service started: restart cpro")
    return collected


def label(entry: EntryPoint) -> str:
    """The package that an entry point came with."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _operations(plugin: Plugin, config: PluginConfig) -> Sequence[OperationType]:
    found = plugin.ask("cpro_operations", config)
    if found is None:
        return ()
    if not isinstance(found, list | tuple) or not all(isinstance(one, OperationType) for one in found):
        raise PluginError(plugin.name, "cpro_operations: must return a list of OperationType")
    return found


def _identifiers(plugin: Plugin, config: PluginConfig) -> tuple[tuple[str, Identify], ...]:
    found = plugin.ask("cpro_identify", config)
    if found is None:
        return ()
    if not callable(found):
        raise PluginError(plugin.name, "cpro_identify: must return a function, or None")
    return ((plugin.name, found),)


def _observers(plugin: Plugin, config: PluginConfig) -> tuple[tuple[str, Observe], ...]:
    found = plugin.ask("cpro_observe", config)
    if found is None:
        return ()
    functions = found if isinstance(found, list | tuple) else (found,)
    for function in functions:
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise PluginError(plugin.name, "cpro_observe: must return plain functions: each has a thread of its own")
    return tuple((plugin.name, function) for function in functions)


def _sinks(plugin: Plugin, config: PluginConfig) -> tuple[tuple[str, str, Sink], ...]:
    found = plugin.ask("cpro_sinks", config)
    if found is None:
        return ()
    sinks = found if isinstance(found, list | tuple) else (found,)
    return tuple((plugin.name, getattr(sink, "name", None) or plugin.name, sink) for sink in sinks)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
