"""Statuses in real Redis: the latest wins in any order; one key a user, on shards, clusters and after failovers."""

import asyncio
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpro._fast.hashing import fnv1a64, jump
from cpro.config.duration import Duration
from cpro.errors import StoreError, StoreReplyError
from cpro.status.store import STATUS_SCRIPT, StatusStore
from tests.support.processes import eventually
from tests.support.redis import RedisCluster, RedisServer, WatchedRedis, run, shards_of, soon

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as one:
        yield one


def with_store(scenario, expire_ms: int = HOUR_MS, **settings):
    async def main():
        async with shards_of(io_timeout=Duration.parse("5s"), **settings) as shards:
            return await scenario(StatusStore(shards, "cpro", expire_ms))

    return run(main())


async def update(store: StatusStore, *updates) -> None:
    """One call a shard."""
    for shard in range(len(store)):
        mine = [one for one in updates if store.shard_of(one[0]) == shard]
        if mine:
            assert await store.write(shard, mine) == [None] * len(mine)


async def times(store: StatusStore, user: str):
    (found,) = await store.read(store.shard_of(user), [user])
    return found


def test_what_is_written_is_read_in_order_and_the_unknown_are_unknown(server):
    async def scenario(store):
        await update(store, ("a", (5, 6)), ("b", (0, 7)))
        assert await store.read(0, ["b", "nobody", "a", "b"]) == [(0, 7), (0, 0), (5, 6), (0, 7)]
        await store.forget(0, ["a", "nobody"])
        assert await store.read(0, ["a", "b"]) == [(0, 0), (0, 7)]

    with_store(scenario, address=(server.address,))


def test_a_user_is_one_key_in_a_hash_tag_of_its_own_that_expires(server):
    server.client().flushall()

    async def scenario(store):
        await update(store, ("42", (2**32 - 1, 1)), ("a}b{", (1, 1)))

    with_store(scenario, address=(server.address,))
    client = server.client()
    assert sorted(client.keys()) == [b"cpro.status.{42}", b"cpro.status.{a}b{}"]
    assert client.get("cpro.status.{42}") == b"\xff\xff\xff\xff\0\0\0\1"
    assert HOUR_MS - 10_000 < client.pttl("cpro.status.{42}") <= HOUR_MS


def test_each_update_lets_the_key_live_on_even_one_that_comes_late(server):

    async def scenario(store):
        await update(store, ("late", (100, 100)))
        server.run("PEXPIRE", "cpro.status.{late}", 5000)
        await update(store, ("late", (1, 1)))
        assert await times(store, "late") == (100, 100)

    with_store(scenario, address=(server.address,))
    assert server.run("PTTL", "cpro.status.{late}") > 5000


def test_the_expired_are_unknown(server):
    async def scenario(store):
        await update(store, ("brief", (5, 5)))
        while await times(store, "brief") != (0, 0):
            await asyncio.sleep(0.01)

    async def later(store):
        await update(store, ("brief", (0, 4)))
        assert await times(store, "brief") == (0, 4)

    with_store(scenario, expire_ms=50, address=(server.address,))
    with_store(later, address=(server.address,))


def test_a_key_of_somebody_else_is_refused_or_taken_over_and_harms_no_other(server):
    client = server.client()
    client.hset("cpro.status.{hash}", "a", "b")
    client.set("cpro.status.{text}", "once upon a time")

    async def scenario(store):
        refused, *rest = await store.write(0, [("hash", (1, 1)), ("text", (2, 2)), ("mine", (3, 3))])
        assert isinstance(refused, StoreReplyError)
        assert rest == [None, None]
        assert await store.read(0, ["hash", "text", "mine"]) == [(0, 0), (2, 2), (3, 3)]

    with_store(scenario, address=(server.address,))


def test_a_user_takes_at_most_200_bytes(server):
    """Of all memory that Redis uses for data, tables and expiry included."""
    client = server.client()
    client.flushall()
    empty = client.info("memory")["used_memory"]
    count = 20_000

    async def scenario(store):
        for first in range(0, count, 1000):
            await update(store, *((f"user-{n:06}", (1_700_000_000, 1_700_000_000)) for n in range(first, first + 1000)))

    with_store(scenario, address=(server.address,))
    assert client.dbsize() == count
    assert (client.info("memory")["used_memory"] - empty) / count <= 200


def test_reading_a_thousand_users_is_one_command(server):

    async def scenario(store):
        server.run("CONFIG", "RESETSTAT")
        assert len(await store.read(0, [f"user-{n}" for n in range(1000)])) == 1000
        assert server.run("INFO", "commandstats")["cmdstat_mget"]["calls"] == 1
        assert len(await store.read(0, [f"user-{n}" for n in range(10_000)])) == 10_000

    with_store(scenario, address=(server.address,))


def test_users_are_spread_over_shards_as_centrifugo_would(tmp_path):
    with RedisServer(tmp_path / "a") as a, RedisServer(tmp_path / "b") as b, RedisServer(tmp_path / "c") as c:
        servers = [a, b, c]

        async def scenario(store):
            for n in range(60):
                await update(store, (str(n), (n + 1, 0)))
            assert [await times(store, str(n)) for n in range(60)] == [(n + 1, 0) for n in range(60)]

        with_store(scenario, address=tuple(server.address for server in servers))
        for number, one in enumerate(servers):
            found = {int(key[13:-1]) for key in one.client().scan_iter()}
            assert found == {n for n in range(60) if jump(fnv1a64(str(n).encode()), 3) == number}
            assert found


def test_the_loss_of_a_shard_costs_only_its_own_users(tmp_path):
    with RedisServer(tmp_path / "a") as a, RedisServer(tmp_path / "b") as b:

        async def scenario(store):
            users = [str(n) for n in range(20)]
            await update(store, *((user, (5, 5)) for user in users))
            b.stop()
            for user in users:
                if store.shard_of(user) == 0:
                    assert await times(store, user) == (5, 5)
                else:
                    with pytest.raises(StoreError):
                        await times(store, user)
            lost = [user for user in users if store.shard_of(user) == 1]
            results = await store.write(1, [(user, (6, 6)) for user in lost])
            assert all(isinstance(result, StoreError) for result in results)
            b.start()
            await soon(lambda: times(store, lost[0]))
            await update(store, *((user, (6, 6)) for user in lost))
            assert await store.read(1, lost) == [(6, 6)] * len(lost)

        with_store(scenario, address=(a.address, b.address))


def test_a_server_that_restarts_without_its_scripts_is_written_to(tmp_path):
    with RedisServer(tmp_path) as server:

        async def scenario(store):
            await update(store, ("42", (5, 5)))
            server.restart()
            await soon(lambda: times(store, "42"))
            await update(store, ("42", (6, 6)))
            assert await times(store, "42") == (6, 6)

        with_store(scenario, address=(server.address,))


@pytest.mark.parametrize("by", ["cluster_address", "address"])
def test_a_cluster_keeps_statuses_and_a_failover_loses_none_that_its_replica_has(tmp_path, by):
    with RedisCluster(tmp_path) as cluster:

        async def scenario(store):
            users = [f"user-{n}" for n in range(200)]
            await update(store, *((user, (n + 1, 5)) for n, user in enumerate(users)))
            expected = [(n + 1, 5) for n in range(200)]
            assert await store.read(0, users) == expected
            assert await store.read(0, users[:1]) == expected[:1]
            await store.forget(0, users[:50])
            expected[:50] = [(0, 0)] * 50
            assert await store.read(0, users) == expected
            assert await asyncio.to_thread(eventually, cluster.is_replicated)
            cluster.master_of(store.key(users[60])).stop()
            assert await soon(lambda: store.read(0, users)) == expected

            async def all_written():
                results = await store.write(0, [(user, (1000, 0)) for user in users])
                for error in filter(None, results):
                    raise error

            await soon(all_written)
            assert await store.read(0, users) == [(1000, online) for _, online in expected]

        seeds = cluster.seeds if by == "cluster_address" else cluster.nodes[0].address
        with_store(scenario, **{by: (seeds,)})


def test_after_a_failover_the_next_master_is_written_and_read(tmp_path):
    with WatchedRedis(tmp_path) as watched:

        async def scenario(store):
            await update(store, ("42", (5, 5)))
            assert await asyncio.to_thread(eventually, watched.is_replicated)
            watched.master.stop()
            while watched.named_port() != watched.replica.port:
                await asyncio.sleep(0.1)
            assert await soon(lambda: times(store, "42")) == (5, 5)
            await update(store, ("42", (6, 4)))
            assert await times(store, "42") == (6, 5)

        with_store(scenario, sentinel_address=(watched.sentinel.address,), sentinel_master_name="mymaster")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    updates=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=40
    ),
    random=st.randoms(use_true_random=False),
)
def test_any_interleaving_of_updates_from_several_nodes_ends_with_the_maximum(server, updates, random):
    """Each is sent by one of three nodes, some twice, in an order of their own."""
    server.client().flushall()
    sent = updates + [one for one in updates if random.random() < 0.3]
    random.shuffle(sent)
    lots = [sent[number::3] for number in range(3)]

    async def scenario(store):
        async def node(mine):
            async with shards_of(address=(server.address,)) as shards:
                own = StatusStore(shards, "cpro", HOUR_MS)
                while mine:
                    count = random.randrange(1, 4)
                    await update(own, *((user, (active, online)) for user, active, online in mine[:count]))
                    mine = mine[count:]

        await asyncio.gather(*map(node, lots))
        for user in "abc":
            of_user = [(0, 0), *((active, online) for name, active, online in updates if name == user)]
            assert await times(store, user) == tuple(map(max, zip(*of_user, strict=True)))

    with_store(scenario, address=(server.address,))


def test_the_script_needs_nothing_newer_than_redis_6_2():
    """The commands and options it uses: SET … PX (2.6.12), GET; `struct` is in every Redis that has Lua."""
    assert set(re.findall(r"call\('(\w+)'", STATUS_SCRIPT.text)) == {"GET", "SET"}
    assert "'PX'" in STATUS_SCRIPT.text


def test_a_write_is_there_for_others_at_once(server):
    async def scenario(store):
        async with shards_of(address=(server.address,)) as shards:
            other = StatusStore(shards, "cpro", HOUR_MS)
            now = int(time.time())
            await update(store, ("fresh", (now, now)))
            assert await times(other, "fresh") == (now, now)

    with_store(scenario, address=(server.address,))
