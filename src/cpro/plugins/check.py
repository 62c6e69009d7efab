"""Whether operation types of plugins can be served; and their limits, in the words of `limits.rules`."""

import inspect
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from cpro.config.faults import Faults
from cpro.config.model import EVENTS, OPERATIONS, SHARED_BUCKETS, Bucket, CommandBlock
from cpro.config.read import Reader
from cpro.config.schema import fields_of
from cpro.errors import PluginError
from cpro.extension import BUILT_IN_SINK, OperationType, Sink
from cpro.limits.rules import BLOCKS, Addition

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SINK_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_OTHER_KEYS: Final = ("redis", "reuse_from_engine")
_TAKEN: Final = frozenset((*OPERATIONS, *SHARED_BUCKETS, *fields_of(CommandBlock), *_OTHER_KEYS))
"""Names that mean something else in a block of limits."""


def compile_addition(plugin: str, operation: OperationType) -> Addition:
    """The operation as limits know it; PluginError when the type is none that can be served."""
    fault = _fault(operation)
    if fault:
        raise PluginError(plugin, f"operation {operation.name!r}: {fault}")
    return Addition(
        operation.name,
        {block: _buckets(plugin, operation, block) for block in operation.buckets},
        is_scoped=operation.scope is not None,
        is_connect="connect" in operation.events,
    )


def check_clashes(operations: Iterable[tuple[str, OperationType]]) -> None:
    """No two types may have one name, or take the same thing."""
    taken: dict[tuple[str, str], str] = {}
    for plugin, operation in operations:
        for part in _parts(operation):
            if part in taken:
                what, name = part
                raise PluginError(plugin, f"{what} {name!r} is taken already, by plugin {taken[part]}")
            taken[part] = plugin


def check_sinks(sinks: Iterable[tuple[str, str, Sink]]) -> None:
    """Each must be one, under a name that no other has; `clickhouse` is the built-in sink's."""
    taken = {BUILT_IN_SINK: "cpro"}
    for plugin, name, sink in sinks:
        if not isinstance(name, str) or not _SINK_NAME.fullmatch(name):
            raise PluginError(plugin, f"cpro_sinks: {name!r} is no name: lower-case letters, digits, _ and -")
        if name in taken:
            raise PluginError(plugin, f"cpro_sinks: the name {name!r} is taken already, by {taken[name]}")
        taken[name] = f"plugin {plugin}"
        for method in ("open", "write", "close"):
            function = getattr(sink, method, None)
            if not callable(function) or inspect.iscoroutinefunction(function):
                raise PluginError(plugin, f"cpro_sinks: {name!r} must have a plain method {method}")
        for attribute, least in (("flush_interval_s", 0.01), ("flush_rows", 1)):
            value = getattr(sink, attribute, None)
            if value is not None and not (isinstance(value, int | float) and value >= least):
                raise PluginError(plugin, f"cpro_sinks: {attribute} of {name!r} must be at least {least}")


def _parts(operation: OperationType) -> Iterator[tuple[str, str]]:
    yield "operation", operation.name
    for what, names in (
        ("event", operation.events),
        ("RPC method", operation.methods),
        ("RPC namespace", operation.namespaces),
    ):
        yield from ((what, name) for name in names)


def _fault(operation: OperationType) -> str:
    if not isinstance(operation.name, str) or not _NAME.fullmatch(operation.name):
        return "its name must be lower-case letters, digits and _, and start with a letter"
    if operation.name in _TAKEN:
        return "its name is one of cpro's own"
    for field, names in (
        ("methods", operation.methods),
        ("namespaces", operation.namespaces),
        ("events", operation.events),
    ):
        if not _are_names(names):
            return f"{field} must be a list of names"
    unknown = [event for event in operation.events if event not in EVENTS]
    if unknown:
        return f"{unknown[0]!r} is none of the events {', '.join(EVENTS)}"
    if not operation.methods and not operation.namespaces and not operation.events:
        return "it takes nothing: name methods, namespaces or events"
    if "connect" in operation.events and (len(operation.events) > 1 or operation.methods or operation.namespaces):
        return "a type that takes connect can take nothing else: its user is known only from the answer"
    if "connect" in operation.events and operation.scope is not None:
        return "a type that takes connect can have no scope"
    if not callable(operation.handle):
        return "handle must be an async function"
    if operation.scope is not None and not callable(operation.scope):
        return "scope must be a function"
    return ""


def _are_names(names: object) -> bool:
    return (
        isinstance(names, Collection)
        and not isinstance(names, str)
        and all(isinstance(name, str) and name for name in names)
    )


def _buckets(plugin: str, operation: OperationType, block: str) -> tuple[Bucket, ...]:
    place = f"operation {operation.name!r}"
    if block not in BLOCKS:
        raise PluginError(plugin, f"{place}: buckets for {block!r}, which is none of {', '.join(BLOCKS)}")
    faults = Faults(place)
    given = [dict(bucket) for bucket in operation.buckets[block]]
    limit = Reader(faults).read_limit({"enabled": True, "buckets": given}, ("buckets", block))
    if faults.lines:
        raise PluginError(plugin, faults.lines[0].replace(".buckets", "", 1))
    return limit.buckets
