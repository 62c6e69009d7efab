"""Settings from `CPRO_…` variables and from flags, laid over those of the file.

A variable holds one setting, or a whole block, list or map as JSON; a block is laid over the file's key by key.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args, get_origin

import msgspec

from .documents import BadDocumentError, parse_json
from .duration import Duration
from .faults import Faults, Origin, Path, nearest
from .model import OPERATIONS, SHARED_BUCKETS, OperationLimit, Settings
from .schema import Field, fields_of
from .size import Size

PREFIX: Final = "CPRO_"

_KUBERNETES: Final = re.compile(  # what a cluster injects for services named cpro or cpro-…
    r"CPRO_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # Go's strconv.ParseBool
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def variables(extra_operations: Iterable[str] = ()) -> dict[str, tuple[Path, Field | None]]:
    """All variables by name, blocks before what they hold; no field: it is a block."""
    operations = (*SHARED_BUCKETS, *OPERATIONS, *extra_operations)
    found: list[tuple[Path, Field | None]] = []
    _collect(Settings, (), operations, found)
    found.sort(key=lambda entry: len(entry[0]))
    return {PREFIX + "_".join(str(step).upper() for step in path): (path, field) for path, field in found}


def lay_environment(
    tree: dict[Any, Any], environ: Mapping[str, str], faults: Faults, extra: Iterable[str] = ()
) -> None:
    known = variables(extra)
    for name, (path, field) in known.items():
        text = environ.get(name)
        if not text:
            continue  # empty is as good as unset
        try:
            value = read_text(text, field)
        except ValueError as error:
            faults.fault_at(f"environment: {name}", str(error))
            continue
        lay(tree, path, value, Origin(f"environment: {name}", path), faults)
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and environ[name] and not _KUBERNETES.fullmatch(name):
            faults.warn_at(f"environment: {name}", _unknown(name, known))


def lay(tree: dict[Any, Any], path: Path, value: object, origin: Origin, faults: Faults) -> None:
    """Puts a value into the tree and remembers where it came from; mappings on the way are copied, never changed."""
    for depth, step in enumerate(path[:-1], start=1):
        child = tree.get(step)
        if child is not None and not isinstance(child, Mapping):
            return  # that block is wrong already, and will be said so
        if child is None:
            faults.origins[path[:depth]] = origin
        tree[step] = dict(child or {})
        tree = tree[step]
    _put(tree, path, value, origin, faults)


def read_text(text: str, field: Field | None) -> object:
    """A variable's text -> what the same setting would be in a file."""
    if field is None or get_origin(field.kind) is dict or _is_list_of_blocks(field):
        return _read_json(text)
    if get_origin(field.kind) is tuple:
        return _read_json(text) if text.lstrip().startswith("[") else text.split()
    if field.kind is bool:
        return _read_bool(text)
    if field.kind not in (Duration, Size) and (field.kind is int or int in get_args(field.kind)):
        return _read_int(text)
    return text


def _put(tree: dict[Any, Any], path: Path, value: object, origin: Origin, faults: Faults) -> None:
    *_, name = path
    below = tree.get(name)
    if isinstance(value, Mapping) and isinstance(below, Mapping):
        tree[name] = dict(below)
        for key, child in value.items():
            _put(tree[name], (*path, str(key)), child, origin, faults)
        return
    tree[name] = value
    faults.origins = {known: what for known, what in faults.origins.items() if known[: len(path)] != path}
    faults.origins[path] = origin


def _collect(
    block: type[msgspec.Struct], path: Path, operations: tuple[str, ...], found: list[tuple[Path, Field | None]]
) -> None:
    for field in fields_of(block).values():
        here = (*path, field.name)
        if field.inline:
            for operation in operations:
                found.append(((*path, operation), None))
                _collect(OperationLimit, (*path, operation), operations, found)
        elif field.block is not None:
            found.append((here, None))
            _collect(field.block, here, operations, found)
        else:
            found.append((here, field))


def _is_list_of_blocks(field: Field) -> bool:
    return get_origin(field.kind) is tuple and get_args(field.kind)[0] is not str


def _read_json(text: str) -> object:
    try:
        value = parse_json(text)
    except BadDocumentError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return value


def _read_bool(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError("must be true or false")
    return text in _TRUE


def _read_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _unknown(name: str, known: Iterable[str]) -> str:
    best = nearest(name.removeprefix(PREFIX), [variable.removeprefix(PREFIX).lower() for variable in known])
    return f"is not a known variable; the nearest is {PREFIX}{best.upper()}" if best else "is not a known variable"
