"""Wires statuses of users: on this node alone, or shared with other nodes through Redis."""

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cpro._fast import mapped
from cpro._fast.counters import Counters, Tally
from cpro.clock import unix_seconds
from cpro.config.model import Settings
from cpro.config.redis_address import Deployment
from cpro.doors.api_user_status import RPC_METHOD, Statuses, seeing, update_own_status
from cpro.doors.telling import Interest
from cpro.errors import StartError
from cpro.metrics import Catalogue
from cpro.pipeline import Handle
from cpro.run.stores import status_store_of

if TYPE_CHECKING:
    from cpro.redis import Shards
    from cpro.status.sight import Sight

CLOSE_S = 1.0
FOLDED_USERS = 1 << 19
"""Users of whom the node remembers what it has written lately: 8 MB."""


@dataclass(frozen=True)
class UserStatus:
    """A worker's statuses, if they are on, and what has to be closed behind them."""

    statuses: Statuses | None = None
    sight: "Sight | None" = None
    shards: "Shards | None" = None

    @property
    def own(self) -> dict[str, Handle]:
        """RPC methods that are answered here."""
        return {} if self.statuses is None else {RPC_METHOD: update_own_status(self.statuses)}

    @property
    def interests(self) -> tuple[Interest, ...]:
        """Who wants to be told of operations."""
        return () if self.sight is None else (seeing(self.sight.see),)

    async def close(self) -> None:
        """Write what is left, close connections."""
        if self.sight is not None:
            self.sight.close()
        if self.statuses is not None:
            await self.statuses.close()
        if self.shards is not None:
            await asyncio.wait_for(self.shards.aclose(), CLOSE_S)


def open_statuses(settings: Settings, resources: ExitStack) -> str:
    """SUPERVISOR. Opens what its workers share, until `resources` are released; the path by which they find it."""
    if not settings.user_status.enabled:
        return ""
    if status_store_of(settings) is None:
        return _open_table(settings, resources)
    from cpro._fast.statusfold import FoldTable

    memory = os.memfd_create("cpro-status-fold")
    resources.callback(os.close, memory)
    path = f"/proc/{os.getpid()}/fd/{memory}"
    FoldTable.create(path, FOLDED_USERS).close()
    return path


def _open_table(settings: Settings, resources: ExitStack) -> str:
    from cpro.status.generations import Generations
    from cpro.status.keeper import Keeper

    folder = Path(settings.data_dir).resolve() / "status"
    expire_s = _expire_s(settings)
    keeper = Keeper(Generations.own(folder, mapped.boot_id()), lambda: unix_seconds() - expire_s - 1)
    resources.callback(keeper.close)
    return str(folder)


def build_statuses(started: Settings, path: str, counters: Counters, catalogue: Catalogue) -> UserStatus:
    """WORKER. Statuses by the settings its service started with; StartError where they can't be used."""
    if not path:
        return UserStatus()

    def count_lost(updates: int) -> None:
        counters.add(catalogue.status_dropped.first, updates)

    deployment = status_store_of(started)
    if deployment is not None:
        return _build_shared(started, deployment, path, counters, catalogue, count_lost)
    from cpro.status.embedded import LocalStatuses
    from cpro.status.generations import Generations
    from cpro.status.sight import Sight

    statuses = LocalStatuses(Generations.attach(Path(path)), _expire_s(started), count_lost)
    return UserStatus(statuses, Sight(statuses.mark_online, _expire_s(started)))


def _build_shared(
    started: Settings,
    deployment: Deployment,
    path: str,
    counters: Counters,
    catalogue: Catalogue,
    count_lost: Callable[[int], None],
) -> UserStatus:
    from cpro._fast.statusfold import FoldTable
    from cpro.redis import Shards
    from cpro.status.service import SharedStatuses
    from cpro.status.sight import Sight
    from cpro.status.store import StatusStore

    try:
        shards = Shards(deployment, on_round_trip=Tally(counters, catalogue.round_trips.first))
    except ValueError as error:
        raise StartError(f"user_status.redis: {error}") from error
    errors = catalogue.store_errors.slot("status")
    statuses = SharedStatuses(
        StatusStore(shards, deployment.prefix, started.user_status.expire_interval // 10**6),
        FoldTable.attach(path),
        expire_s=_expire_s(started),
        timeout_s=max(shard.access.io_timeout_s for shard in deployment.shards),
        count_error=lambda: counters.add(errors),
        count_lost=count_lost,
    )
    return UserStatus(statuses, Sight(statuses.mark_online, _expire_s(started)), shards)


def _expire_s(settings: Settings) -> int:
    return -(-settings.user_status.expire_interval // 10**9)
