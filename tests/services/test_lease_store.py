"""`LeaseStore` on real clients and real servers, in real time."""

import pytest

from cpro.errors import StoreError, StoreReplyError
from cpro.limits.leases import Ask, Limit, Request
from cpro.limits.redis_store import LeaseStore, parse_answer
from tests.support.redis import RedisCluster, run, shards_of

LIMIT = Limit(0xFF00FF00FF00FF00, 60_000_000_000, 300_000_000_000)  # five, one a minute
USERS = ["", "}x", "{}", "{a}b", "ü✓", "a b\nc", "x" * 2000]


def request(user: str, need: int = 1) -> Request:
    return Request(user, (Ask(LIMIT),), need)


async def take_all(store: LeaseStore, users: list[str], need: int = 3) -> list[int]:
    admitted = []
    for user in users:
        (answer,) = await store.take(store.part_of(user).shard, [request(user, need)])
        assert not isinstance(answer, StoreError), answer
        admitted.append(answer.admitted)
    return admitted


def test_any_user_id_has_its_own_bucket(lease_redis):
    lease_redis.run("FLUSHALL")

    async def scenario():
        async with shards_of(address=[lease_redis.address]) as shards:
            store = LeaseStore(shards, "cpro")
            assert await take_all(store, USERS) == [3] * len(USERS)
            assert await take_all(store, USERS) == [2] * len(USERS)
            other = LeaseStore(shards, "cpro", "quota")
            assert await take_all(other, USERS) == [3] * len(USERS)

    run(scenario())
    assert lease_redis.run("DBSIZE") == 2 * len(USERS)
    assert lease_redis.run("PTTL", "cpro:limit:") > 120_000


def test_looking_spends_nothing(lease_redis):
    lease_redis.run("FLUSHALL")

    async def scenario():
        async with shards_of(address=[lease_redis.address]) as shards:
            store = LeaseStore(shards, "cpro")
            (answer,) = await store.look(0, [request("u", 5)])
            assert answer.admitted == 5
            heard = []
            answers = await store.take(0, [request("u", 4), request("u", 4)], lambda *one: heard.append(one))
            assert [one.admitted for one in answers] == [4, 1]
            assert heard == list(enumerate(answers))

    run(scenario())


def test_a_server_that_forgot_the_script_is_given_it_again(lease_redis):
    lease_redis.run("FLUSHALL")

    async def scenario():
        async with shards_of(address=[lease_redis.address]) as shards:
            store = LeaseStore(shards, "cpro")
            assert await take_all(store, ["u"], 1) == [1]
            lease_redis.run("SCRIPT", "FLUSH")
            assert await take_all(store, ["u"], 5) == [4]

    run(scenario())


def test_a_key_that_is_no_bucket_is_a_fault_of_that_user_only(lease_redis):
    lease_redis.run("FLUSHALL")
    lease_redis.run("LPUSH", "cpro:limit:strange", "x")

    async def scenario():
        async with shards_of(address=[lease_redis.address]) as shards:
            store = LeaseStore(shards, "cpro")
            fault, answer = await store.take(0, [request("strange"), request("u")])
            assert isinstance(fault, StoreReplyError)
            assert answer.admitted == 1

    run(scenario())


@pytest.mark.timeout(90)
def test_any_user_id_works_on_a_cluster(tmp_path):
    with RedisCluster(tmp_path, 3, 0) as cluster:

        async def scenario():
            async with shards_of(cluster_address=[cluster.seeds]) as shards:
                store = LeaseStore(shards, "cpro")
                answers = await store.take(0, [request(user, 3) for user in USERS])
                assert [answer.admitted for answer in answers] == [3] * len(USERS)

        run(scenario())


@pytest.mark.parametrize("reply", [None, b"OK", [], [0, 1], [0, 1, 2, 3]])
def test_what_is_no_answer_of_the_script_is_a_fault(reply):
    assert isinstance(parse_answer(reply), StoreReplyError)
