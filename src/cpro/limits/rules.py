"""Settings → a flat table: (operation, namespace, method) → the plan of buckets it pays from.

Everything a limit can say is decided here, once, at load; the gate only looks up. A bucket's identity is a stable hash
of block, operation, override and interval (and of the burst where it is not the rate), so it is the same on all nodes
and survives a reordered file. A reload that changes a burst names the identity before, so that the share used is kept.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cpro._fast.buckets import Layer, Plan
from cpro._fast.hashing import identity
from cpro._fast.leasetable import LeasePlan
from cpro.config.model import (
    Bucket,
    Channel,
    CommandBlock,
    MethodOverride,
    NamespaceOverride,
    OperationLimit,
    RateLimit,
    Rpc,
)
from cpro.limits.leases import Limit
from cpro.operation import OPERATIONS

BLOCKS = ("client_command", "user_command", "redis_user_command")
"""In the order they are asked; the position is the plan's block number."""

_BY_CLIENT, _BY_USER = 0, 1
_NO_LIMIT = OperationLimit()
_KEYED_BY = (_BY_CLIENT, _BY_USER, _BY_USER)
_STORED = 2
"""The block that a store shared with other nodes keeps, where there is one."""


@dataclass(frozen=True, slots=True)
class Addition:
    """An operation beside Centrifugo's: one that a plugin brings."""

    name: str
    buckets: Mapping[str, tuple[Bucket, ...]] = field(default_factory=dict)
    """By block: what holds where the block says nothing of this operation, even if the block is not enabled."""
    is_scoped: bool = False
    """Whether each of its scopes (say, a channel) has its own buckets apart from every other."""
    is_connect: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """The plans of one operation: the general one, and those of the names that have an override."""

    general: Plan
    by_method: dict[str, Plan]
    by_namespace: dict[str, Plan]


@dataclass(frozen=True, slots=True, eq=False)
class Leased:
    """Those buckets of a plan that are shared with other nodes through the store."""

    plan: LeasePlan
    limits: tuple[Limit, ...]
    local: Plan
    """The other buckets of the operation."""
    with_local: Plan
    """All of them with these kept on the node, for when the store is away."""
    is_all: bool
    """Whether there are no others."""
    may_stream: bool = False
    """Whether one of them is so small that it streams while it is empty."""


@dataclass(frozen=True)
class Rules:
    """The whole table. `past` remembers what every bucket was, for the next reload."""

    rules: dict[str, Rule]
    own_rules: dict[str, Rule]
    """The same with only what is explicitly set for the operation: neither `default` nor `total`."""
    channel: Channel
    rpc: Rpc
    past: dict[tuple[str, ...], "_Past"] = field(repr=False)
    layers: dict[Plan, "_Layers"] = field(repr=False)
    """What the plans of scoped operations are made of."""
    leased: dict[Plan, Leased] = field(repr=False)
    """What else an operation pays from; empty where no store is shared."""

    def plan(self, kind: str, channel: str, method: str, own_only: bool = False) -> Plan:
        """The plan for one operation; raises KeyError for a kind nobody registered."""
        rule = (self.own_rules if own_only else self.rules)[kind]
        if method and rule.by_method:
            plan = rule.by_method.get(method)
            if plan is not None:
                return plan
        if rule.by_namespace:
            namespace = rpc_namespace(method, self.rpc) if method else channel_namespace(channel, self.channel)
            return rule.by_namespace.get(namespace, rule.general)
        return rule.general

    def plans_without_overrides(self) -> dict[str, Plan]:
        """By operation, where neither channel nor method changes the plan."""
        plain = {kind: rule for kind, rule in self.rules.items() if not rule.by_method and not rule.by_namespace}
        return {kind: rule.general for kind, rule in plain.items()}

    def scoped_plan(self, kind: str, channel: str, method: str, scope: str, *, own_only: bool = False) -> Plan:
        """The same for one scope of a scoped operation: only its own buckets are the scope's alone."""
        layers = self.layers[self.plan(kind, channel, method, own_only)]
        return Plan([*(_scoped(layer, scope) for layer in layers.own), *layers.shared], layers.dry_run)


def channel_namespace(channel: str, names: Channel) -> str:
    """The namespace Centrifugo finds: one private prefix off, then what stands before the first boundary."""
    if names.private_prefix:
        channel = channel.removeprefix(names.private_prefix)
    return _before(channel, names.namespace_boundary)


def rpc_namespace(method: str, names: Rpc) -> str:
    """The namespace of an RPC method: what stands before the first boundary, else none."""
    return _before(method, names.namespace_boundary)


def _before(text: str, boundary: str) -> str:
    if not boundary:
        return ""
    namespace, found, _ = text.partition(boundary)
    return namespace if found else ""


def compile_rules(
    limits: RateLimit,
    channel: Channel,
    rpc: Rpc,
    *,
    extra: Iterable[Addition] = (),
    previous: Rules | None = None,
    has_store: bool = False,
) -> Rules:
    """Compile `limits`; `extra` are operations of plugins, `previous` the rules that a reload replaces.

    With `has_store` the buckets of `redis_user_command` are leased. Those of scoped operations stay on the node.
    """
    additions = {addition.name: addition for addition in extra}
    return _Compiler(limits, additions, previous, has_store).compile(channel, rpc, (*OPERATIONS, *additions))


class _Past(NamedTuple):
    """One bucket's identity now, and the one before its burst was changed last."""

    own: int
    full_ns: int
    seen: frozenset[int]
    """All identities since the service started."""
    previous: int = 0
    previous_full_ns: int = 0
    returns: bool = False


class _Layers(NamedTuple):
    """A plan taken apart: the operation's own buckets, and those it shares with others."""

    own: list[Layer]
    shared: list[Layer]
    dry_run: tuple[bool, bool, bool]


def _scoped(layer: Layer, scope: str) -> Layer:
    return layer._replace(
        identity=identity("scope", f"{layer.identity:x}", scope),
        previous_identity=layer.previous_identity and identity("scope", f"{layer.previous_identity:x}", scope),
    )


class _Compiler:
    def __init__(
        self, limits: RateLimit, additions: Mapping[str, Addition], previous: Rules | None, has_store: bool
    ) -> None:
        self._has_store = has_store
        self._leased: dict[Plan, Leased] = {}
        self._stored_as: dict[int, int] = {}
        self._blocks: list[CommandBlock] = [getattr(limits, name) for name in BLOCKS]
        self._additions = additions
        self._connects = {"connect", *(addition.name for addition in additions.values() if addition.is_connect)}
        client, user, redis = (limits.dry_run or block.dry_run for block in self._blocks)
        self._dry_run = (client, user, redis)
        self._before = previous.past if previous else {}
        self._past: dict[tuple[str, ...], _Past] = {}
        self._taken_apart: dict[Plan, _Layers] = {}

    def compile(self, channel: Channel, rpc: Rpc, kinds: Iterable[str]) -> Rules:
        kinds = tuple(kinds)
        return Rules(
            rules={kind: self._rule(kind, rpc, own_only=False) for kind in kinds},
            own_rules={kind: self._rule(kind, rpc, own_only=True) for kind in kinds},
            channel=channel,
            rpc=rpc,
            past=self._past,
            layers=self._taken_apart,
            leased=self._leased,
        )

    def _rule(self, kind: str, rpc: Rpc, *, own_only: bool) -> Rule:
        limits = [block.operations.get(kind, _NO_LIMIT) for block in self._blocks]
        methods = {override.method for limit in limits for override in limit.method_overrides}
        namespaces = {override.namespace_name for limit in limits for override in limit.namespace_overrides}
        return Rule(
            general=self._plan(kind, "", "", own_only=own_only),
            by_method={name: self._plan(kind, rpc_namespace(name, rpc), name, own_only=own_only) for name in methods},
            by_namespace={name: self._plan(kind, name, "", own_only=own_only) for name in namespaces},
        )

    def _plan(self, kind: str, namespace: str, method: str, *, own_only: bool) -> Plan:
        parts = _Layers([], [], self._dry_run)
        for number, block in enumerate(self._blocks):
            if number == _BY_CLIENT and kind in self._connects:
                continue
            own = self._own_layers(number, block, kind, namespace, method)
            if own is not None:
                parts.own.extend(own)
            elif block.enabled and not own_only:
                parts.shared.extend(self._named_layers(number, block, "default"))
            if block.enabled and not own_only:
                parts.shared.extend(self._named_layers(number, block, "total"))
        layers = [*parts.own, *parts.shared]
        if kind in self._additions and self._additions[kind].is_scoped:
            plan = Plan(layers, self._dry_run)
            self._taken_apart[plan] = parts
            return plan
        stored = [layer for layer in layers if layer.block == _STORED] if self._has_store else []
        plan = Plan([layer for layer in layers if layer not in stored], self._dry_run)
        if stored:
            self._leased[plan] = self._lease(stored, plan, Plan(layers, self._dry_run))
        return plan

    def _lease(self, layers: list[Layer], local: Plan, with_local: Plan) -> Leased:
        names = [self._stored_as[layer.identity] for layer in layers]
        limits = [Limit(name, layer.step_ns, layer.full_ns) for name, layer in zip(names, layers, strict=True)]
        plan = LeasePlan(names, limits)
        may_stream = any(limit.stream_ns for limit in limits)
        return Leased(plan, tuple(limits), local, with_local, is_all=not len(local), may_stream=may_stream)

    def _own_layers(
        self, number: int, block: CommandBlock, kind: str, namespace: str, method: str
    ) -> list[Layer] | None:
        """What is explicitly set for the operation; None where `default` is to be used."""
        limit = block.operations.get(kind)
        if limit is None:
            given = self._additions[kind].buckets.get(BLOCKS[number]) if kind in self._additions else None
            return self._layers(number, (kind,), given) if given else None
        if not block.enabled:
            return []
        for override, words in _overrides(limit, namespace, method):
            if not override.enabled:
                return []
            return self._layers(number, (kind, *words), override.buckets) if override.buckets else None
        return self._layers(number, (kind,), limit.buckets) if limit.enabled and limit.buckets else None

    def _named_layers(self, number: int, block: CommandBlock, name: str) -> list[Layer]:
        limit = block.operations.get(name)
        if limit is None or not limit.enabled:
            return []
        return self._layers(number, (name,), limit.buckets)

    def _layers(self, number: int, words: tuple[str, ...], buckets: Iterable[Bucket]) -> list[Layer]:
        seen: dict[int, int] = {}
        layers = []
        for bucket in buckets:
            twin = seen[bucket.interval] = seen.get(bucket.interval, 0) + 1
            name = (BLOCKS[number], *words, str(int(bucket.interval)), str(twin))
            layers.append(self._layer(number, name, bucket))
        return layers

    def _layer(self, number: int, name: tuple[str, ...], bucket: Bucket) -> Layer:
        step_ns = -(-int(bucket.interval) // bucket.rate)  # rounded up: a limit may refill late, never early
        burst = bucket.rate if bucket.burst is None else bucket.burst
        full_ns = burst * step_ns
        # A burst of its own changes how long a full bucket takes to refill, so it is another bucket in the table;
        # where burst is the rate, that time is the interval and the share used survives a new rate by itself.
        words = name if burst == bucket.rate else (*name, f"{burst}/{bucket.rate}")
        own = identity(*words)
        self._stored_as[own] = identity(*name)  # the store rescales by itself when a burst changes
        past = self._past[name] = _succeed(self._before.get(name), own, full_ns)
        return Layer(
            block=number,
            keyed_by=_KEYED_BY[number],
            identity=own,
            step_ns=step_ns,
            full_ns=full_ns,
            previous_identity=past.previous,
            previous_full_ns=past.previous_full_ns,
            returns=past.returns,
        )


def _succeed(before: _Past | None, own: int, full_ns: int) -> _Past:
    """A reload that changes something else does not end what a bucket inherits: users may not have come back yet."""
    if before is None:
        return _Past(own, full_ns, frozenset((own,)))
    if before.own == own:
        return before._replace(full_ns=full_ns)
    return _Past(own, full_ns, before.seen | {own}, before.own, before.full_ns, returns=own in before.seen)


def _overrides(
    limit: OperationLimit, namespace: str, method: str
) -> Iterator[tuple[MethodOverride | NamespaceOverride, tuple[str, str]]]:
    """The overrides that apply, the more specific first, each with the words that name its buckets."""
    for by_method in limit.method_overrides:
        if method and by_method.method == method:
            yield by_method, ("method", method)
    for by_namespace in limit.namespace_overrides:
        if namespace and by_namespace.namespace_name == namespace:
            yield by_namespace, ("namespace", namespace)
