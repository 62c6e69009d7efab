"""Users' statuses through kills, failovers and lost shards: what was answered is there, and nobody else notices."""

import asyncio
import json
import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.support.processes import eventually, log_so_far
from tests.support.redis import RedisCluster, RedisServer, WatchedRedis
from tests.support.service import Service, event
from tests.support.status import UPDATED, USER_STATUS, call, result, statuses
from tests.support.wire import post

AWAY = {"error": {"code": 100, "message": "internal server error"}}


class Updates:
    """Clients that update users one after the other, each user once; `answered` are those cpro has answered."""

    def __init__(self, cpro: Service, connections: int = 16) -> None:
        self._cpro = cpro
        self._connections = connections
        self.answered: list[str] = []
        self.wrong: list[bytes] = []
        self._is_over = False

    def run(self, meanwhile: Callable[[], None]) -> None:
        """Until `meanwhile`, in a thread of its own, is over."""
        asyncio.run(self._run(meanwhile))

    async def _run(self, meanwhile: Callable[[], None]) -> None:
        callers = [asyncio.create_task(self._caller(number)) for number in range(self._connections)]
        try:
            await asyncio.to_thread(meanwhile)
        finally:
            self._is_over = True
            await asyncio.gather(*callers)

    def go_on(self, updates: int) -> None:
        """For `meanwhile`: let so many more be answered."""
        enough = len(self.answered) + updates
        assert eventually(lambda: len(self.answered) >= enough)

    async def _caller(self, number: int) -> None:
        turn = 0
        while not self._is_over:
            with suppress(OSError, EOFError):
                host, port = self._cpro.proxy.rsplit(":", 1)
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    while not self._is_over:
                        turn += 1
                        await self._update(f"u{number}-{turn}", reader, writer)
                finally:
                    writer.close()
            await asyncio.sleep(0.005)

    async def _update(self, user: str, reader, writer) -> None:
        body = json.dumps(event(user, method="update_user_status", data={})).encode()
        writer.write(post(body, b"/centrifugo/rpc"))
        head = await reader.readuntil(b"\r\n\r\n")
        answer = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
        if json.loads(answer) == UPDATED:
            self.answered.append(user)
        else:
            self.wrong.append(answer)


def all_known(cpro: Service, users: list[str]) -> bool:
    parts = (users[first : first + 10_000] for first in range(0, len(users), 10_000))
    return all(active for part in parts for active, _ in statuses(cpro, *part).values())


def test_workers_killed_in_the_middle_of_updates_lose_none_that_was_answered(service):
    cpro = service({**USER_STATUS, "workers": 3})
    updates = Updates(cpro)

    def kill_one_after_the_other() -> None:
        for _ in range(6):
            updates.go_on(200)
            victim = random.choice(cpro.workers())  # it may be starting still
            os.kill(victim, signal.SIGKILL)
            assert eventually(lambda dead=victim: dead not in cpro.workers() and len(cpro.workers()) == 3)
        updates.go_on(200)

    updates.run(kill_one_after_the_other)
    assert updates.wrong == []
    assert all_known(cpro, updates.answered)
    assert cpro.metric("cpro_worker_restarts_total") >= 3


def test_the_whole_service_killed_in_the_middle_of_updates_loses_none_that_was_answered(service):
    cpro = service({**USER_STATUS, "workers": 2})
    updates = Updates(cpro)

    def kill_all() -> None:
        updates.go_on(500)
        cpro.kill_all()

    updates.run(kill_all)
    cpro.start()
    assert all_known(cpro, updates.answered)


def test_the_loss_of_a_shard_is_noticed_by_its_own_users_only(tmp_path, service):
    with RedisServer(tmp_path / "a") as a, RedisServer(tmp_path / "b") as b:
        settings = {"redis": {"address": [a.address, b.address], "io_timeout": "2s", "connect_timeout": "2s"}}
        cpro = service({**USER_STATUS, **settings})
        users = [f"user-{number}" for number in range(40)]
        result(cpro, "update_user_status", *users)
        assert eventually(lambda: all_known(cpro, users))
        on_b = {key.decode().partition("{")[2][:-1] for key in b.client().scan_iter()}
        assert 0 < len(on_b) < 40
        b.pause()
        for user in users:
            if user not in on_b:
                assert call(cpro, "get_user_status", {"users": [user]})[1] != AWAY
        for user in sorted(on_b)[:3]:
            assert call(cpro, "get_user_status", {"users": [user]})[1] == AWAY
        assert call(cpro, "get_user_status", {"users": users})[1] == AWAY
        for user in sorted(on_b):
            assert cpro.post("rpc", event(user, method="update_user_status")) == (200, UPDATED)
        b.resume()
        assert eventually(lambda: call(cpro, "get_user_status", {"users": users})[1] != AWAY)
        assert eventually(lambda: all(online for _, online in statuses(cpro, *sorted(on_b)).values()))
        assert cpro.metric("cpro_status_dropped_updates_total") == 0


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_a_failover_is_got_over_and_updates_of_meanwhile_arrive(tmp_path, service, kind):
    def run(redis: dict, servers: WatchedRedis | RedisCluster, fail) -> None:
        short = {"io_timeout": "2s", "connect_timeout": "2s"}
        cpro = service({**USER_STATUS, "redis": {**redis, **short}})
        early = [f"early-{number}" for number in range(50)]
        result(cpro, "update_user_status", *early)
        assert eventually(lambda: all_known(cpro, early))
        assert eventually(servers.is_replicated)
        fail()
        late = [f"late-{number}" for number in range(50)]
        for user in late:
            assert cpro.post("rpc", event(user, method="update_user_status")) == (200, UPDATED)
        everybody = {"users": early + late}
        assert eventually(lambda: call(cpro, "get_user_status", everybody)[1] != AWAY)
        assert eventually(lambda: all_known(cpro, early + late))
        assert cpro.metric("cpro_status_dropped_updates_total") == 0

    if kind == "sentinel":
        with WatchedRedis(tmp_path) as watched:
            address = {"sentinel_address": watched.sentinel.address, "sentinel_master_name": "mymaster"}
            run(address, watched, watched.master.stop)
    else:
        with RedisCluster(tmp_path) as cluster:
            victim = cluster.master_of(b"cpro.status.{late-0}")
            run({"cluster_address": cluster.seeds}, cluster, victim.stop)


def test_more_updates_than_can_be_kept_are_answered_and_counted_as_lost(tmp_path, service):
    with RedisServer(tmp_path / "redis") as redis:
        short = {"io_timeout": "2s", "connect_timeout": "2s"}
        cpro = service({**USER_STATUS, "redis": {"address": redis.address, **short}})
        redis.stop()
        for part in range(11):
            assert result(cpro, "update_user_status", *(f"{part}-{number}" for number in range(10_000))) == {}
        lost = cpro.metric("cpro_status_dropped_updates_total")
        assert 9_000 <= lost <= 10_000  # what is on its way counts only when it comes back
        redis.restart()
        assert eventually(lambda: redis.client().dbsize() >= 100_000)
        assert [line["message"] for line in log_so_far(cpro)].count("store of statuses is away") == 1


def test_a_service_starts_without_its_redis_and_finds_it_later(tmp_path, service):
    redis = RedisServer(tmp_path / "redis")
    cpro = service({**USER_STATUS, "redis": {"address": redis.address}})
    try:
        assert cpro.post("rpc", event("42", method="update_user_status")) == (200, UPDATED)
        assert call(cpro, "get_user_status", {"users": ["42"]}) == (200, AWAY)
        redis.start()
        assert eventually(lambda: call(cpro, "get_user_status", {"users": ["42"]})[1] != AWAY)
        assert eventually(lambda: all_known(cpro, ["42"]))
    finally:
        redis.stop()
