"""A Redis Cluster: redirections are followed, a failover is survived, and a node that hangs holds up nobody else."""

import asyncio
import time

import pytest
from redis.crc import key_slot

from cpro.config.duration import Duration
from cpro.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from cpro.redis import Script
from tests.support.processes import eventually
from tests.support.redis import RedisCluster, RedisServer, run, shards_of, soon
from tests.support.redis_faults import ScriptedRedis, resp

COUNT = Script("return redis.call('INCR', KEYS[1])")
KEYS = [b"key%d" % number for number in range(60)]


@pytest.fixture
def cluster(tmp_path):
    with RedisCluster(tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def masters(tmp_path_factory):
    with RedisCluster(tmp_path_factory.mktemp("masters"), 3, 0) as one:
        yield one


def calls(*keys: bytes):
    return [(key, ()) for key in keys]


def test_a_key_that_moved_is_followed_and_remembered(masters):
    trips = []

    async def scenario():
        settings = {"cluster_address": (masters.seeds,), "on_round_trip": trips.append}
        async with shards_of(**settings) as shards:
            assert await shards.evalsha_many(0, COUNT, calls(*KEYS)) == [1] * 60
            source = masters.master_of(b"moving")
            target = next(node for node in masters.nodes if node is not source)
            await shards.evalsha(0, COUNT, b"moving")
            trips.clear()
            assert await shards.evalsha(0, COUNT, b"moving") == 2
            assert len(trips) == 1
            migrate(b"moving", source, target)
            assert await shards.evalsha_many(0, COUNT, calls(b"moving", *KEYS)) == [3] + [2] * 60
            await asyncio.sleep(0.4)  # the map is new
            trips.clear()
            assert await shards.evalsha(0, COUNT, b"moving") == 4
            assert len(trips) == 1

    run(scenario())


def test_a_slot_on_its_way_is_asked_for_at_both_ends(masters):
    async def scenario():
        async with shards_of(cluster_address=(masters.seeds,)) as shards:
            await shards.evalsha(0, COUNT, b"{slot}stays")
            source = masters.master_of(b"{slot}")
            target = next(node for node in masters.nodes if node is not source)
            target.run("SCRIPT", "FLUSH")  # ASK and NOSCRIPT for the same call
            announce(b"{slot}", source, target)
            many = calls(b"{slot}stays", b"{slot}new", b"{slot}newer", b"{slot}new")
            assert await shards.evalsha_many(0, COUNT, many) == [2, 1, 1, 2]
            source.run("MIGRATE", "127.0.0.1", target.port, "{slot}stays", 0, 1000)
            settle(b"{slot}", target, masters)
            assert await shards.evalsha_many(0, COUNT, many) == [3, 3, 2, 4]

    run(scenario())


def test_a_master_that_dies_is_replaced_by_itself(cluster):
    async def scenario():
        async with shards_of(cluster_address=(cluster.seeds,)) as shards:
            assert await shards.evalsha_many(0, COUNT, calls(*KEYS)) == [1] * 60
            dead = cluster.master_of(KEYS[0])
            lost = {key for key in KEYS if cluster.master_of(key) is dead}
            assert await asyncio.to_thread(eventually, cluster.is_replicated)
            dead.stop()
            results = await shards.evalsha_many(0, COUNT, calls(*KEYS))
            assert {key for key, result in zip(KEYS, results, strict=True) if isinstance(result, StoreError)} == lost
            began = time.monotonic()
            await soon(lambda: shards.evalsha(0, COUNT, KEYS[0]))
            print(f"recovered after {time.monotonic() - began:.1f} s")
            results = await shards.evalsha_many(0, COUNT, calls(*KEYS))
            assert not [result for result in results if isinstance(result, StoreError)]

    run(scenario())


def test_a_node_that_hangs_holds_up_only_its_own_keys(masters):
    async def scenario():
        async with shards_of(cluster_address=(masters.seeds,)) as shards:
            await shards.evalsha_many(0, COUNT, calls(*KEYS))
            hung = masters.master_of(KEYS[0])
            theirs = {number for number, key in enumerate(KEYS) if masters.master_of(key) is hung}
            values = {key: int(masters.master_of(key).run("GET", key)) for key in KEYS}
            hung.pause()
            began = time.monotonic()
            arrived = {}
            results = await shards.evalsha_many(
                0, COUNT, calls(*KEYS), lambda index, result: arrived.setdefault(index, time.monotonic() - began)
            )
            assert set(arrived) == set(range(60))
            assert {n for n, result in enumerate(results) if isinstance(result, StoreTimeoutError)} == theirs
            assert all((seconds > 0.35) == (number in theirs) for number, seconds in arrived.items())
            hung.resume()
            await asyncio.sleep(0.3)
            again = await soon(lambda: whole(shards))
            assert again == [values[key] + 2 for key in KEYS], "a call that got no answer was executed once"

    async def whole(shards):
        await shards.evalsha(0, Script("return 1"), KEYS[0])  # until the node answers
        return await shards.evalsha_many(0, COUNT, calls(*KEYS))

    run(scenario())


def test_a_master_that_became_a_replica_sends_us_on(cluster):
    async def scenario():
        async with shards_of(cluster_address=(cluster.seeds,)) as shards:
            await shards.evalsha(0, COUNT, b"k")
            old = cluster.master_of(b"k")
            replica = next(
                node for node in cluster.nodes if node.run("INFO", "replication").get("master_port") == old.port
            )
            await asyncio.sleep(0.2)
            replica.run("CLUSTER", "FAILOVER")
            while cluster.master_of(b"k") is old:
                assert await soon(lambda: shards.evalsha(0, COUNT, b"k"))
            value = await shards.evalsha(0, COUNT, b"k")
            assert await shards.evalsha(0, COUNT, b"k") == value + 1

    run(scenario())


def test_several_clusters_share_the_keys(masters):
    async def scenario():
        async with shards_of(cluster_address=(masters.seeds, masters.nodes[0].address)) as shards:
            assert [shards.shard_of(key) for key in ("chat:index", "news")] == [0, 1]
            await asyncio.gather(*(shards.evalsha(shard, COUNT, b"k") for shard in (0, 1)))

    run(scenario())


def test_a_key_depends_on_its_master_as_soon_as_that_is_known(masters):
    async def scenario():
        async with shards_of(cluster_address=(masters.seeds,)) as shards:
            assert shards.place_of(0, b"k") is None
            await shards.evalsha(0, COUNT, b"k")
            assert {shards.place_of(0, key).port for key in KEYS} == {node.port for node in masters.nodes}
            assert all(shards.place_of(0, key).port == masters.master_of(key).port for key in KEYS)

    run(scenario())


def test_seeds_that_hang_do_not_hold_up_finding_the_others(masters, tmp_path):
    async def scenario(seeds: str):
        long = Duration.parse("1m")
        async with shards_of(cluster_address=(seeds,), io_timeout=long, connect_timeout=long) as shards:
            async with asyncio.timeout(10):
                assert await shards.evalsha(0, Script("return 7"), b"k") == 7

    with RedisServer(tmp_path / "one") as one, RedisServer(tmp_path / "two") as two:
        for server in (one, two):
            server.pause()
        run(scenario(f"{one.address},{two.address},{masters.seeds}"))


def test_seeds_that_all_refuse_say_why_each_does(tmp_path):
    async def scenario(seeds: str):
        async with shards_of(cluster_address=(seeds,)) as shards:
            with pytest.raises(StoreUnavailableError, match=r"cluster support disabled.*cluster support disabled"):
                await shards.evalsha(0, COUNT, b"k")

    with RedisServer(tmp_path / "one") as one, RedisServer(tmp_path / "two") as two:
        run(scenario(f"{one.address},{two.address}"))


def test_slots_that_nobody_serves_fail_alone(masters):
    slots = resp([[0, 8191, [b"127.0.0.1", masters.nodes[0].port, b"id"]]])

    def answer(command):
        return slots if command[0] == b"CLUSTER" else resp(5)

    async def scenario(scripted):
        slots_here = resp([[0, 8191, [b"", scripted.port, b"id"]]])
        scripted.answer = lambda command: slots_here if command[0] == b"CLUSTER" else resp(5)
        async with shards_of(cluster_address=(scripted.address,)) as shards:
            results = await shards.evalsha_many(0, COUNT, calls(*KEYS))
            for key, result in zip(KEYS, results, strict=True):
                assert result == 5 if key_slot(key) < 8192 else isinstance(result, StoreUnavailableError)

    with ScriptedRedis(answer) as scripted:
        run(scenario(scripted))


@pytest.mark.parametrize("reply", [b"-ERR This instance has cluster support disabled\r\n", b"*0\r\n", b"+OK\r\n"])
def test_what_is_no_cluster_is_unavailable(reply):
    async def scenario(scripted):
        async with shards_of(cluster_address=(scripted.address,)) as shards:
            with pytest.raises(StoreUnavailableError):
                await shards.evalsha(0, COUNT, b"k")

    with ScriptedRedis(lambda command: reply) as scripted:
        run(scenario(scripted))


def test_a_failing_node_is_not_asked_for_the_map_in_a_loop():
    asked = []

    def answer(command):
        asked.append(command)
        return b"-CLUSTERDOWN The cluster is down\r\n"

    async def scenario(scripted):
        async with shards_of(address=(scripted.address,)) as shards:
            scripted.answer = lambda command: b"-MOVED 1 127.0.0.1:1\r\n"
            for _ in range(50):
                with pytest.raises(StoreUnavailableError):
                    await shards.evalsha(0, COUNT, b"k")
                await asyncio.sleep(0.01)

    with ScriptedRedis(answer) as scripted:
        run(scenario(scripted))
        assert len([command for command in scripted.commands if command[0] == b"CLUSTER"]) < 8


def announce(key: bytes, source, target) -> None:
    slot = key_slot(key)
    target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source.run("CLUSTER", "MYID"))
    source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target.run("CLUSTER", "MYID"))


def settle(key: bytes, target, cluster) -> None:
    for node in (target, *(node for node in cluster.nodes if node is not target)):
        node.run("CLUSTER", "SETSLOT", key_slot(key), "NODE", target.run("CLUSTER", "MYID"))


def migrate(key: bytes, source, target) -> None:
    announce(key, source, target)
    source.run("MIGRATE", "127.0.0.1", target.port, key, 0, 1000)
    for node in (target, source):
        node.run("CLUSTER", "SETSLOT", key_slot(key), "NODE", target.run("CLUSTER", "MYID"))
