"""Asking for a thousand users: the API's method, request decoded and answer encoded, beside bare redis-py pipelines.

Both in this process on uvloop, against the same servers with the same keys, in turn. redis-py does less: it has no
request to read and no answer to write.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import msgspec
import redis.asyncio
import uvloop
from tests.support.redis import RedisServer, shards_of

from cpro._fast.statusfold import FoldTable
from cpro.doors.api_user_status import status_methods
from cpro.status.service import SharedStatuses
from cpro.status.store import StatusStore

USERS = [f"user-{number}" for number in range(1000)]
NOW = 1_700_000_000

Work = Callable[[], Awaitable[object]]


class World:
    """Shards that know all users, and the two ways to ask them."""

    def __init__(self, addresses: list[str], store: StatusStore) -> None:
        self._store = store
        memory = os.memfd_create("fold")
        fold = FoldTable.create(f"/proc/{os.getpid()}/fd/{memory}", 4096)
        os.close(memory)
        self.statuses = SharedStatuses(
            store, fold, timeout_s=5.0, expire_s=3600, count_error=lambda: None, count_lost=lambda updates: None
        )
        self._get = status_methods(self.statuses, lambda name: lambda verdict, duration_ns: None)["get_user_status"]
        self._body = msgspec.json.encode({"users": USERS})
        self._clients = [redis.asyncio.Redis.from_url(f"redis://{address}") for address in addresses]
        self._of_shard = [[user for user in USERS if store.shard_of(user) == shard] for shard in range(len(store))]
        self._keys = [[store.key(user) for user in users] for users in self._of_shard]

    async def fill(self) -> None:
        for shard, users in enumerate(self._of_shard):
            await self._store.write(shard, [(user, (NOW, NOW)) for user in users])

    async def ours(self) -> object:
        told = asyncio.get_running_loop().create_future()
        self._get(self._body, 0, told.set_result)
        return msgspec.json.encode({"result": await told})

    async def pipelines(self) -> object:
        """One GET for each user, a pipeline for each shard, side by side."""
        return await asyncio.gather(*map(self._pipeline, self._clients, self._keys))

    async def one_mgets(self) -> object:
        """The same with one MGET for each shard."""
        return await asyncio.gather(
            *(client.mget(keys) for client, keys in zip(self._clients, self._keys, strict=True))
        )

    async def _pipeline(self, client: redis.asyncio.Redis, keys: list[bytes]) -> list[object]:
        async with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.get(key)
            return await pipeline.execute()

    async def close(self) -> None:
        await self.statuses.close()
        for client in self._clients:
            await client.aclose()


def compare(folder: Path, shards: int, rounds: int, calls: int) -> dict[str, object]:
    """Median ratios, ours to redis-py's, of time and of this process's CPU time."""
    with ExitStack() as running:
        servers = [running.enter_context(RedisServer(folder / f"{shards}-{number}")) for number in range(shards)]
        return uvloop.run(_measure([server.address for server in servers], rounds, calls))


async def _measure(addresses: list[str], rounds: int, calls: int) -> dict[str, object]:
    async with shards_of(address=tuple(addresses)) as clients:
        world = World(addresses, StatusStore(clients, "cpro", 3_600_000))
        await world.fill()
        answer = msgspec.json.decode(await world.ours())["result"]["statuses"]
        assert answer == [{"user": user, "active": NOW, "online": NOW} for user in USERS]
        ways: dict[str, Work] = {"ours": world.ours, "pipelines": world.pipelines, "mgets": world.one_mgets}
        seen = [{name: await _cost(way, calls) for name, way in ways.items()} for _ in range(rounds + 1)][1:]
        await world.close()
    found: dict[str, object] = {"shards": len(addresses), "users": len(USERS)}
    for place, what in enumerate(("time", "cpu")):
        found[f"{what}_ms"] = {name: median(one[name][place] for one in seen) for name in ways}
        for peer in ("pipelines", "mgets"):
            found[f"{what}_to_{peer}"] = median(one["ours"][place] / one[peer][place] for one in seen)
    return found


async def _cost(way: Work, calls: int) -> tuple[float, float]:
    """ms of time and of CPU time for each call."""
    time_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(calls):
        await way()
    return (time.perf_counter() - time_s) / calls * 1000, (time.process_time() - cpu_s) / calls * 1000
