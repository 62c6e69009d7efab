"""What must hold for limits beyond the type of each setting."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from .duration import UNITS_NS
from .faults import Faults, Path
from .model import CHANNEL_OPERATIONS, Bucket, CommandBlock, MethodOverride, NamespaceOverride, OperationLimit

_LEAST_NS_PER_TOKEN: Final = 100  # the bucket table counts in nanoseconds; this keeps its rounding below 1 %
_MOST_REFILL_NS: Final = 10 * 365 * 24 * UNITS_NS["h"]
_MOST_BUCKETS: Final = 10  # an operation's plan has room for 64: own and total buckets of three blocks


def check_bucket(bucket: Bucket, path: Path, faults: Faults) -> None:
    if bucket.interval < _LEAST_NS_PER_TOKEN * bucket.rate:
        faults.fault((*path, "rate"), "must be at most 10000000 tokens a second")
    elif (bucket.burst or bucket.rate) * bucket.interval > _MOST_REFILL_NS * bucket.rate:
        faults.fault((*path, "burst"), "would take more than ten years to refill")


def check_operation(
    limit: OperationLimit, raw: Mapping[str, object], path: Path, faults: Faults, extra: frozenset[str]
) -> None:
    operation = path[-1]
    for item, where in _bucket_lists(limit, path):
        if len(item.buckets) > _MOST_BUCKETS:
            faults.fault((*where, "buckets"), f"must have at most {_MOST_BUCKETS} entries")
    if limit.namespace_overrides and operation not in (*CHANNEL_OPERATIONS, "rpc", *extra):
        faults.fault((*path, "namespace_overrides"), f"must not stand here: {operation} has no namespace")
    for name in ("method_overrides", "method_override"):
        if raw.get(name) and operation not in ("rpc", *extra):
            faults.fault((*path, name), f"must not stand here: {operation} has no method")
    if "method_overrides" in raw and "method_override" in raw:
        faults.fault((*path, "method_override"), "must not stand beside method_overrides, which is the same")
    _check_repeated([item.namespace_name for item in limit.namespace_overrides], (*path, "namespace_overrides"), faults)
    _check_repeated([item.method for item in limit.method_overrides], (*path, "method_overrides"), faults)
    if limit.buckets and "enabled" not in raw:
        faults.warn(path, "has no effect until it has `enabled: true`")


def _bucket_lists(
    limit: OperationLimit, path: Path
) -> Iterator[tuple[OperationLimit | NamespaceOverride | MethodOverride, Path]]:
    """Everything in a limit that has buckets, with where it stands."""
    yield limit, path
    for number, namespace in enumerate(limit.namespace_overrides):
        yield namespace, (*path, "namespace_overrides", number)
    for number, method in enumerate(limit.method_overrides):
        yield method, (*path, "method_overrides", number)


def check_block(block: CommandBlock, raw: Mapping[str, object], path: Path, faults: Faults) -> None:
    if path[-1] == "client_command" and "connect" in raw:
        faults.warn((*path, "connect"), "has no effect: client_command never applies to connect")
    if block.operations and "enabled" not in raw:
        faults.warn(path, "has no effect until it has `enabled: true`")
    if block.enabled:
        _warn_of_idle_limits(block, path, faults)


def _warn_of_idle_limits(block: CommandBlock, path: Path, faults: Faults) -> None:
    default = block.operations.get("default")
    has_default = default is not None and default.enabled and bool(default.buckets)
    for name, limit in block.operations.items():
        if not limit.enabled:
            continue
        overrides: tuple[NamespaceOverride | MethodOverride, ...] = (
            *limit.namespace_overrides,
            *limit.method_overrides,
        )
        if not limit.buckets and not overrides and not has_default:
            faults.warn((*path, name), "limits nothing: neither it nor `default` has buckets")


def _check_repeated(names: list[str], path: Path, faults: Faults) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            faults.fault(path, f'has more than one entry for "{name}"')
