"""Wires a worker's limits: on this node alone, or shared with other nodes through Redis."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpro._fast.buckets import BucketTable
from cpro._fast.counters import Counters, Tally
from cpro.config.model import Settings
from cpro.config.redis_address import Deployment
from cpro.errors import StartError
from cpro.limits.gate import Gate
from cpro.limits.quota import LocalQuotas
from cpro.metrics import LEASE_EVENTS, Catalogue
from cpro.run.stores import stores_of

if TYPE_CHECKING:
    from cpro.limits.leaser import Leaser
    from cpro.limits.shared_quota import SharedQuotas
    from cpro.redis import Shards

CLOSE_S = 1.0


@dataclass(frozen=True)
class Limits:
    """A worker's gate and quotas, and what has to be closed behind them."""

    gate: Gate
    quotas: "LocalQuotas | SharedQuotas"
    leaser: "Leaser | None" = None
    shards: "Shards | None" = None

    async def close(self) -> None:
        """Hand back leases, close connections."""
        await self.quotas.close()
        if self.leaser is not None:
            await self.leaser.close()
        if self.shards is not None:
            await asyncio.wait_for(self.shards.aclose(), CLOSE_S)


def build_limits(
    started: Settings, table: BucketTable, leases_path: str, counters: Counters, catalogue: Catalogue
) -> Limits:
    """The limits of a worker, `started` with its service; StartError where its Redis settings can't be used."""
    count = Tally(counters, catalogue.limit_checks.first)
    stores = stores_of(started)
    if stores.quotas is None:
        return Limits(Gate(table, count), LocalQuotas(table))
    shared = _Shared(started, stores.quotas, counters, catalogue)
    if stores.limits is None:
        return Limits(Gate(table, count), shared.quotas(), shards=shared.shards)
    return shared.limits(table, count, leases_path)


class _Shared:
    """What needs redis-py: imported here, for a service without Redis does without it."""

    def __init__(self, started: Settings, deployment: Deployment, counters: Counters, catalogue: Catalogue) -> None:
        from cpro.limits.leases import Policy
        from cpro.redis import Shards

        try:
            self.shards = Shards(deployment, on_round_trip=Tally(counters, catalogue.round_trips.first))
        except ValueError as error:
            raise StartError(f"redis: {error}") from error
        self._prefix = deployment.prefix
        self._policy = Policy()
        self._timeout_s = started.client.rate_limit.store_timeout.seconds
        self._counters = counters
        self._errors = catalogue.store_errors.slot("limits")
        self._events = {event: catalogue.lease_tokens.slot(event) for event in LEASE_EVENTS}

    def _count_error(self, shard: int = 0) -> None:
        self._counters.add(self._errors)

    def _count_tokens(self, event: str, tokens: int) -> None:
        self._counters.add(self._events[event], tokens)

    def quotas(self) -> "SharedQuotas":
        from cpro.limits.redis_store import LeaseStore
        from cpro.limits.shared_quota import SharedQuotas

        store = LeaseStore(self.shards, self._prefix, "quota", self._policy)
        return SharedQuotas(store, timeout_s=self._timeout_s, count_error=self._count_error)

    def limits(self, table: BucketTable, count: Tally, leases_path: str) -> Limits:
        from cpro._fast.leasetable import LeaseTable
        from cpro.limits.leaser import Leaser
        from cpro.limits.redis_store import LeaseStore
        from cpro.limits.shared_gate import SharedGate

        leases = LeaseTable.attach(leases_path)
        leaser = Leaser(
            LeaseStore(self.shards, self._prefix, policy=self._policy),
            leases,
            self._policy,
            timeout_s=self._timeout_s,
            count_tokens=self._count_tokens,
            count_error=self._count_error,
        )
        return Limits(SharedGate(table, count, leases, leaser), self.quotas(), leaser, self.shards)
