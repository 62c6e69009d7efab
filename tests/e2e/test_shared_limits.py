"""Contract 4.2 over several nodes: real cpro processes share `redis_user_command` through real Redis servers."""

import asyncio
import time
from itertools import count

import pytest

from cpro._fast.hashing import fnv1a64, jump
from tests.support.envelope import least_admitted, worst_overshoot
from tests.support.hammer import Hammer
from tests.support.processes import eventually, log_so_far
from tests.support.redis import RedisCluster, RedisServer
from tests.support.service import REFUSED, Service, event, limits

RATE, BURST = 200, 200
STARVED = 0.5
"""Of what a bucket without leases must have admitted. Leases lie idle while the machine stands still; how near to all
of it they come is up to the simulator (tests/unit/test_leases.py), whose clock waits for everybody."""


def node(folder, redis: dict, *, workers: int = 2, **rate_limit) -> Service:
    """A node that waits for Redis as long as the machine needs: what it decides without is another test's."""
    shared = limits("redis_user_command", publish=(RATE, "1s"))
    shared["client"]["rate_limit"].update({"store_timeout": "5s", **rate_limit})
    return Service(folder, {**shared, "redis": redis, "proxy": {"without_upstream": "allow"}, "workers": workers})


def has_logged(cpro: Service, message: str) -> bool:
    return any(line["message"] == message for line in log_so_far(cpro))


def together(hammers: list[Hammer], seconds: float, *meanwhile) -> list[tuple[float, float]]:
    """What all of them got, who ask for more than there is."""

    async def run() -> None:
        first, *others = hammers
        await asyncio.gather(
            first.run(seconds, *meanwhile, until_refused=True),
            *(hammer.run(seconds, until_refused=True) for hammer in others),
        )

    asyncio.run(run())
    return [times for hammer in hammers for times in hammer.admitted]


def check(hammers: list[Hammer]) -> None:
    """Not one token too many between them, and no famine."""
    admitted = [times for hammer in hammers for times in hammer.admitted]
    refused = [times for hammer in hammers for times in hammer.refused]
    assert refused, "there must be more demand than the limit allows"
    assert worst_overshoot(admitted, BURST, RATE) <= 0
    assert len(admitted) >= STARVED * least_admitted(refused, BURST, RATE)


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def three_shards(tmp_path):
    with (
        RedisServer(tmp_path / "a") as one,
        RedisServer(tmp_path / "b") as two,
        RedisServer(tmp_path / "c") as three,
    ):
        yield [one, two, three]


def test_two_nodes_share_a_users_limit(tmp_path, redis):
    settings = {"address": redis.address}
    with node(tmp_path / "1", settings) as one, node(tmp_path / "2", settings) as two:
        hammers = [Hammer(lambda: one.proxy, 32), Hammer(lambda: two.proxy, 32)]
        together(hammers, 4)
        check(hammers)
        assert all(hammer.admitted and hammer.refused for hammer in hammers), "one node must not starve the other"


def test_users_of_all_shards_are_limited_over_both_nodes(tmp_path, three_shards):
    settings = {"address": [server.address for server in three_shards]}
    users = {jump(fnv1a64(user.encode()), 3): user for user in map(str, range(20))}
    with node(tmp_path / "1", settings) as one, node(tmp_path / "2", settings) as two:
        for shard, user in users.items():
            hammers = [Hammer(lambda: one.proxy, 8, user), Hammer(lambda: two.proxy, 8, user)]
            together(hammers, 2)
            check(hammers)
            assert three_shards[shard].run("EXISTS", f"cpro:limit:{user}") == 1


def test_nodes_share_limits_through_a_cluster(tmp_path):
    with RedisCluster(tmp_path / "cluster") as cluster:
        settings = {"cluster_address": [cluster.seeds]}
        with node(tmp_path / "1", settings) as one, node(tmp_path / "2", settings) as two:
            hammers = [Hammer(lambda: one.proxy, 16), Hammer(lambda: two.proxy, 16)]
            together(hammers, 3)
            check(hammers)


def test_a_node_that_is_killed_takes_no_more_than_its_lease_along(tmp_path, redis):
    settings = {"address": redis.address}
    with node(tmp_path / "1", settings) as one, node(tmp_path / "2", settings) as two:
        hammers = [Hammer(lambda: one.proxy, 16), Hammer(lambda: two.proxy, 16)]
        history = together(hammers, 4, (1.5, two.kill_all))
        assert worst_overshoot(history, BURST, RATE) <= 0
        two.start()
        history += together([Hammer(lambda: one.proxy, 16), Hammer(lambda: two.proxy, 16)], 2)
        assert worst_overshoot(history, BURST, RATE) <= 0


def test_a_stop_gives_everything_back(tmp_path, redis):
    settings = {"address": redis.address}
    shared = {
        **limits("redis_user_command", publish=(100, "1h")),
        "redis": settings,
        "proxy": {"without_upstream": "allow"},
    }
    with Service(tmp_path / "1", shared) as one:
        assert [one.post("publish", event())[1] for _ in range(30)] == [{"result": {}}] * 30
        assert one.stop() == 0
    with Service(tmp_path / "2", shared) as two:
        answers = [two.post("publish", event())[1] for _ in range(80)]
    assert answers == [{"result": {}}] * 70 + [REFUSED] * 10


def test_tokens_that_nobody_spends_go_back_and_every_token_is_accounted_for(tmp_path, redis):
    with node(tmp_path / "1", {"address": redis.address}, workers=1) as one:
        admitted = sum(one.post("publish", event())[1] == {"result": {}} for _ in range(40))

        def tokens(event_: str) -> float:
            return one.metric(f'cpro_lease_tokens_total{{event="{event_}"}}')

        assert eventually(lambda: tokens("returned"), 20)
        assert tokens("spent") == admitted == 40
        assert tokens("granted") == tokens("spent") + tokens("returned")
        assert tokens("expired") == 0


@pytest.mark.parametrize(("policy", "answer"), [("allow", {"result": {}}), ("deny", REFUSED)])
def test_while_redis_is_away_on_store_error_decides(tmp_path, redis, policy, answer):
    with node(tmp_path / "1", {"address": redis.address}, on_store_error=policy) as one:
        redis.stop()
        assert [one.post("publish", event(user=str(n)))[1] for n in range(5)] == [answer] * 5
        one.wait_for("store of limits is away")
        assert one.metric('cpro_store_errors_total{store="limits"}') >= 1


def test_while_redis_is_away_local_keeps_the_limit_on_the_node(tmp_path, redis):
    with node(tmp_path / "1", {"address": redis.address}) as one:
        redis.stop()
        hammer = Hammer(lambda: one.proxy, 16)
        history = together([hammer], 2)
        assert worst_overshoot(history, BURST, RATE) <= 0
        assert len(history) >= BURST
        redis.restart()
        others = (one.post("publish", event(user=f"other{number}"))[1] for number in count())
        assert eventually(lambda: next(others) != {"result": {}} or has_logged(one, "store of limits is back"), 20)
        assert next(others) == {"result": {}}


def test_an_operation_never_waits_longer_than_store_timeout(tmp_path, redis):
    with node(tmp_path / "1", {"address": redis.address, "io_timeout": "9s"}, store_timeout="150ms") as one:
        assert one.post("publish", event())[1] == {"result": {}}
        redis.pause()
        try:
            began = time.monotonic()
            assert one.post("publish", event(user="new"))[1] == {"result": {}}
            assert time.monotonic() - began < 9, "it did not wait for the connection to give up"
        finally:
            redis.resume()


def test_a_user_over_the_limit_asks_redis_a_few_times_a_second(tmp_path, redis):
    with node(tmp_path / "1", {"address": redis.address}, workers=1) as one:
        together([Hammer(lambda: one.proxy, 16)], 1)
        before, began = one.metric('cpro_redis_round_trips_total{shard="0"}'), time.monotonic()
        together([Hammer(lambda: one.proxy, 16)], 3)
        asked, lasted = one.metric('cpro_redis_round_trips_total{shard="0"}') - before, time.monotonic() - began
        assert asked <= 5 * lasted + 2


def test_dry_run_refuses_nothing(tmp_path, redis):
    shared = {
        **limits("redis_user_command", publish=(2, "1h"), dry_run=True),
        "redis": {"address": redis.address},
        "proxy": {"without_upstream": "allow"},
    }
    with Service(tmp_path / "1", shared) as one:
        assert [one.post("publish", event())[1] for _ in range(5)] == [{"result": {}}] * 5
        assert one.metric('cpro_limit_checks_total{block="redis",verdict="dry_run"}') == 3
