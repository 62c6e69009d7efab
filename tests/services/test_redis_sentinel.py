"""Sentinels: the new master is found by itself, and a late Sentinel is not believed."""

import asyncio
from contextlib import suppress

import pytest

from cpro.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from cpro.redis import Script
from tests.support.processes import eventually
from tests.support.redis import RedisServer, WatchedRedis, run, shards_of, soon
from tests.support.redis_faults import ScriptedRedis, resp

COUNT = Script("return redis.call('INCR', KEYS[1])")


def watched_by(address: str) -> dict:
    return {"sentinel_address": (address,), "sentinel_master_name": "mymaster"}


@pytest.mark.parametrize("trouble", ["dies", "hangs", "is demoted"])
def test_the_next_master_is_found(tmp_path, trouble):
    async def scenario(watched):
        async with shards_of(**watched_by(watched.sentinel.address)) as shards:
            assert await shards.evalsha(0, COUNT, b"k") == 1
            assert await asyncio.to_thread(eventually, watched.is_replicated)
            if trouble == "dies":
                watched.master.stop()
            elif trouble == "hangs":
                watched.master.pause()
                with pytest.raises(StoreTimeoutError):
                    await shards.evalsha(0, COUNT, b"k")
            else:
                watched.sentinel.run("SENTINEL", "FAILOVER", "mymaster")
            while watched.named_port() != watched.replica.port:
                await asyncio.sleep(0.1)
                with suppress(StoreError):
                    await shards.evalsha(0, COUNT, b"k")
            await soon(lambda: shards.evalsha(0, COUNT, b"k"))
            await asyncio.sleep(1.1)
            await shards.evalsha(0, COUNT, b"k")  # the Sentinel is asked again at the latest now
            await asyncio.sleep(0.1)
            value = await shards.evalsha(0, COUNT, b"k")
            assert int(watched.replica.run("GET", "k")) == value

    with WatchedRedis(tmp_path) as watched:
        run(scenario(watched))


def test_a_late_sentinel_that_names_a_replica_is_not_believed(tmp_path):
    async def scenario(replica):
        def answer(command):
            return resp([b"127.0.0.1", b"%d" % replica.port])

        with ScriptedRedis(answer) as late:
            async with shards_of(**watched_by(late.address)) as shards:
                with pytest.raises(StoreUnavailableError, match="not the master"):
                    await shards.evalsha(0, COUNT, b"k")
                replica.run("REPLICAOF", "NO", "ONE")
                assert await soon(lambda: shards.evalsha(0, COUNT, b"k")) == 1

    with (
        RedisServer(tmp_path / "a") as master,
        RedisServer(tmp_path / "b", "--replicaof", f"127.0.0.1 {master.port}") as replica,
    ):
        run(scenario(replica))
