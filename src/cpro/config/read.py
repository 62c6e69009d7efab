"""Plain values -> the model, collecting every fault on the way instead of stopping at the first."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, get_args, get_origin

import msgspec

from . import analytics_checks, limit_checks
from .checks import RULES
from .duration import Duration
from .faults import Faults, Path, nearest, render
from .model import (
    OPERATIONS,
    SHARED_BUCKETS,
    Bucket,
    ClickhouseAnalytics,
    CommandBlock,
    MethodOverride,
    OperationLimit,
    RedisCommandBlock,
    Settings,
)
from .scalars import bounded, read_bool, read_choice, read_duration, read_int, read_size, read_text
from .schema import NOTHING, Field, fields_of, leaves
from .size import Size

WRONG: Final = msgspec.UNSET  # stands for a value that had a fault

WITHOUT_EFFECT: Final = frozenset({"notifications", "snapshots", "max_buffer_size", "grpc_metadata"})
"""Keys of Centrifugo PRO that mean nothing here."""
_METHOD_MAP: Final = "method_override"  # PRO's older spelling: {method: {…}}


class Reader:
    def __init__(
        self, faults: Faults, extra_operations: frozenset[str] = frozenset(), plugins: Collection[str] = ()
    ) -> None:
        self.faults = faults
        self.plugins = plugins
        self.extra_operations = extra_operations
        self.operations = frozenset((*SHARED_BUCKETS, *OPERATIONS, *extra_operations))
        self._after: dict[type, Callable[[Any, Any, Path], None]] = {
            Bucket: lambda bucket, _, path: limit_checks.check_bucket(bucket, path, faults),
            OperationLimit: lambda limit, raw, path: limit_checks.check_operation(
                limit, raw, path, faults, self.extra_operations
            ),
            CommandBlock: lambda block, raw, path: limit_checks.check_block(block, raw, path, faults),
            ClickhouseAnalytics: lambda block, raw, path: analytics_checks.check_analytics(block, raw, path, faults),
        }
        self._after[RedisCommandBlock] = self._after[CommandBlock]

    def read_settings(self, value: object) -> Settings:
        settings = self._block(Settings, value, ())
        return settings if isinstance(settings, Settings) else Settings()

    def read_limit(self, value: object, path: Path) -> OperationLimit:
        """One operation's limit, outside of any settings."""
        limit = self._block(OperationLimit, value, path)
        return limit if isinstance(limit, OperationLimit) else OperationLimit()

    def _block(self, block: type[msgspec.Struct], value: object, path: Path) -> Any:  # noqa: ANN401
        if not isinstance(value, Mapping):
            return self._wrong(path, "must be a block of settings, `name: value`")
        values: dict[str, Any] = {}
        for name, child in value.items():
            if isinstance(name, str):
                self._entry(block, values, name, child, path)
            else:
                self.faults.fault((*path, str(name)), "is not text: put the name in quotes")
        fields = fields_of(block)
        missing = [field.name for field in fields.values() if field.default is NOTHING and field.name not in values]
        for name in missing:
            if not self.faults.hit((*path, name)):
                self.faults.fault((*path, name), "is missing")
        if missing:
            return WRONG
        result = block(**values)
        if block in self._after:
            self._after[block](result, value, path)
        return result

    def _entry(self, block: type[msgspec.Struct], values: dict[str, Any], name: str, child: object, path: Path) -> None:
        """One `name: value` of a block; null is as good as not there."""
        here = (*path, name)
        fields = fields_of(block)
        field = fields.get(name)
        inline = next((known for known in fields.values() if known.inline), None)
        if field is not None and not field.inline:
            result = WRONG if child is None else self._value(field, field.kind, child, here)
            if result is not WRONG:
                values[name] = result
        elif inline is not None and name in self.operations:
            result = WRONG if child is None else self._block(OperationLimit, child, here)
            if result is not WRONG:
                values.setdefault(inline.name, {})[name] = result
        elif block is OperationLimit and name == _METHOD_MAP:
            values.setdefault("method_overrides", () if child is None else self._method_map(child, here))
        else:
            self._unknown(block, child, here, inline is not None)

    def _unknown(self, block: type[msgspec.Struct], child: object, path: Path, takes_operations: bool) -> None:
        name = path[-1]
        if name in WITHOUT_EFFECT:
            self.faults.warn(path, "has no effect in cpro")
            return
        known = [field.name for field in fields_of(block).values() if not field.inline]
        known += sorted(self.operations) if takes_operations else ()
        is_inline = name in fields_of(block)  # what it names stands directly here, not below it
        best = nearest(str(name), known) or (None if is_inline else _elsewhere(str(name)))
        hint = f"the nearest is {best}" if best else f"known here: {', '.join(known)}"
        self.faults.fault(path, f"is not a known key; {hint}")

    def _method_map(self, value: object, path: Path) -> Any:  # noqa: ANN401
        if not isinstance(value, Mapping):
            self.faults.fault(path, "must map methods to overrides, `method: {buckets: …}`")
            return ()
        overrides = []
        for method, body in value.items():
            here = (*path, str(method))
            if isinstance(body, Mapping) and "method" in body:
                self.faults.fault((*here, "method"), "must not stand here: the name before the colon is the method")
            elif not isinstance(body, Mapping | None):
                self.faults.fault(here, "must be a block of settings, `name: value`")
            else:
                overrides.append(self._block(MethodOverride, {**(body or {}), "method": method}, here))
        return tuple(override for override in overrides if override is not WRONG)

    def _value(self, field: Field, kind: Any, value: object, path: Path) -> Any:  # noqa: ANN401
        if field.block is not None:
            return self._block(field.block, value, path)
        if get_origin(kind) is tuple:
            return self._list(field, get_args(kind)[0], value, path)
        if get_origin(kind) is dict:
            return self._map(field, value, path) if get_args(kind)[1] is str else self._options(value, path)
        try:
            return self._scalar(field, value)
        except ValueError as error:
            return self._wrong(path, str(error))

    def _scalar(self, field: Field, value: object) -> object:
        if field.choices:
            return read_choice(value, field.choices)
        if field.kind is bool:
            return read_bool(value)
        if field.kind is Duration:
            return bounded(read_duration(value), field.least, field.most)
        if field.kind is Size:
            return bounded(read_size(value), field.least, field.most)
        if field.kind is int or int in get_args(field.kind):
            return bounded(read_int(value), field.least, field.most)
        return RULES[field.check](read_text(value))

    def _list(self, field: Field, kind: Any, value: object, path: Path) -> Any:  # noqa: ANN401
        if kind is str and isinstance(value, str):
            value = [value]  # as Centrifugo takes it
        if not isinstance(value, list):
            return self._wrong(path, "must be a list")
        results = [self._item(field, kind, item, (*path, index)) for index, item in enumerate(value)]
        return tuple(item for item in results if item is not WRONG)

    def _item(self, field: Field, kind: Any, value: object, path: Path) -> Any:  # noqa: ANN401
        if kind is not str:
            return self._block(kind, value, path)
        try:
            return RULES[field.check](read_text(value))
        except ValueError as error:
            return self._wrong(path, str(error))

    def _map(self, field: Field, value: object, path: Path) -> Any:  # noqa: ANN401
        if not isinstance(value, Mapping):
            return self._wrong(path, "must map names to text, `name: text`")
        result = {}
        for name, child in value.items():
            here = (*path, str(name))
            if field.keys and name not in field.keys:
                best = nearest(str(name), field.keys)
                hint = f"the nearest is {best}" if best else f"known here: {', '.join(field.keys)}"
                self.faults.fault(here, f"is not a known event; {hint}")
                continue
            item = self._item(field, str, child, here)
            if item is not WRONG:
                result[name] = item
        return result

    def _options(self, value: object, path: Path) -> Any:  # noqa: ANN401
        """Options by plugin, as they stand there; the plugins themselves say what is wrong with them."""
        if not isinstance(value, Mapping):
            return self._wrong(path, "must map plugins to their options, `name: {option: value}`")
        result = {}
        for name, options in value.items():
            here = (*path, str(name))
            if name not in self.plugins:
                self.faults.fault(here, f"is not an installed plugin; {_nearest_plugin(str(name), self.plugins)}")
            elif not isinstance(options, Mapping | None):
                self.faults.fault(here, "must be a block of options, `name: value`")
            else:
                result[name] = dict(options or {})
        return result

    def _wrong(self, path: Path, text: str) -> Any:  # noqa: ANN401
        self.faults.fault(path, text)
        return WRONG


def _nearest_plugin(name: str, known: Collection[str]) -> str:
    best = nearest(name, known)
    return f"the nearest is {best}" if best else f"installed: {', '.join(known) or 'none'}"


def _elsewhere(name: str) -> str | None:
    """The full path of a setting or block of this name that stands somewhere else."""
    paths = [
        path[:length] for path, field in leaves(Settings) if not field.inline for length in range(1, len(path) + 1)
    ]
    by_name = {path[-1]: path for path in reversed(paths)}
    best = nearest(name, by_name, likeness=0.8)
    return render(by_name[best]) if best else None
