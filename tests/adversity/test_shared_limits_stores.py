"""Redis hangs, forgets, fails over or is not there: `on_store_error` decides for those concerned, then it is over."""

import asyncio
import threading
import time
from collections.abc import Callable
from itertools import cycle

import pytest

from tests.e2e.test_shared_limits import BURST, RATE, node, together
from tests.support.envelope import worst_overshoot
from tests.support.hammer import Hammer
from tests.support.processes import eventually, log_so_far
from tests.support.redis import RedisCluster, RedisServer, WatchedRedis
from tests.support.service import REFUSED, Service, event, exchange

OK = {"result": {}}
RECOVERY_S = 20.0
"""5 s are promised; a machine that stands still now and then gets longer."""
TIMEOUT_S = 1.0
"""What an operation waits for a store at most: more than the machine may need for one that is well."""
AWAY, BACK = "store of limits is away", "store of limits is back"


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        yield server


def count_of(cpro: Service, message: str) -> int:
    return sum(line["message"] == message for line in log_so_far(cpro))


def timed(cpro: Service, user: str) -> tuple[float, object]:
    began = time.monotonic()
    answer = cpro.post("publish", event(user=user))[1]
    return time.monotonic() - began, answer


def shard_of(user: str, shards: int = 3) -> int:
    from cpro._fast.hashing import fnv1a64, jump

    return jump(fnv1a64(user.encode()), shards)


def users_of(shard: int, stem: str, count: int) -> list[str]:
    users = (f"{stem}{number}" for number in range(10_000))
    return [user for user in users if shard_of(user) == shard][:count]


def recovers(cpro: Service, user: str) -> bool:
    """Whether the store, not `deny`, decides about a user again."""
    return eventually(lambda: cpro.post("publish", event(user=user))[1] == OK, RECOVERY_S)


def test_users_of_other_shards_do_not_notice_that_one_hangs(tmp_path):
    with (
        RedisServer(tmp_path / "a") as first,
        RedisServer(tmp_path / "b") as second,
        RedisServer(tmp_path / "c") as third,
    ):
        shared = {"address": [first.address, second.address, third.address]}
        with node(tmp_path / "1", shared, on_store_error="deny", store_timeout=f"{TIMEOUT_S}s") as cpro:
            pids = cpro.workers()
            second.pause()
            hung, well = [], []
            stop = threading.Event()

            def visit_others() -> None:
                names = cycle(users_of(0, "x", 1500) + users_of(2, "y", 1500))
                connection = cpro.connect()
                while not stop.is_set():
                    well.append(exchange(connection, "/centrifugo/publish", event(user=next(names)))[1])
                    time.sleep(0.004)

            other = threading.Thread(target=visit_others)
            other.start()
            try:
                for policy, answer in (("deny", REFUSED), ("allow", OK), ("local", OK)):
                    rate_limit = {**cpro.settings["client"]["rate_limit"], "on_store_error": policy}
                    cpro.reload({**cpro.settings, "client": {"rate_limit": rate_limit}})
                    answers = [timed(cpro, user) for user in users_of(1, policy, 20)]
                    assert [each for _, each in answers] == [answer] * 20
                    hung.append([took for took, _ in answers])
            finally:
                stop.set()
                other.join(5)
                second.resume()
            assert max(map(min, hung)) < TIMEOUT_S, "while it is known to be away nobody waits"
            assert well
            assert {str(answer) for answer in well} == {str(OK)}, (
                "whoever has to wait for the one that hangs is refused"
            )
            rate_limit["on_store_error"] = "deny"
            cpro.reload({**cpro.settings, "client": {"rate_limit": rate_limit}})
            for user in users_of(1, "after", 8):
                assert recovers(cpro, user)
            assert cpro.workers() == pids


@pytest.mark.parametrize("policy", ["deny", pytest.param("local", marks=pytest.mark.slow)])
def test_a_store_that_hangs_for_a_while_costs_no_more_than_its_exception(tmp_path, redis, policy):
    shared = {"address": redis.address}
    with (
        node(tmp_path / "1", shared, on_store_error=policy, store_timeout="200ms") as one,
        node(tmp_path / "2", shared, on_store_error=policy, store_timeout="200ms") as two,
    ):
        hammers = [Hammer(lambda: one.proxy, 8), Hammer(lambda: two.proxy, 8)]
        history = together(hammers, 5, (0.5, redis.pause), (2.2, redis.resume))
        outages = 0 if policy == "deny" else 2 * BURST  # a burst per node
        if policy == "deny":
            assert worst_overshoot(history, BURST, RATE) <= 0
        else:  # each node keeps the limit by itself meanwhile, so both together admit twice the rate
            assert worst_overshoot(history, BURST + outages, 2 * RATE) <= 0
        print(policy, "beyond the limit:", worst_overshoot(history, BURST, RATE))
        assert all(eventually(lambda cpro=cpro: count_of(cpro, BACK), RECOVERY_S) for cpro in (one, two))
        hammers = [Hammer(lambda: one.proxy, 8), Hammer(lambda: two.proxy, 8)]
        assert worst_overshoot(together(hammers, 1), BURST, RATE) <= 0
        assert all(hammer.admitted for hammer in hammers)
        for cpro in (one, two):
            assert count_of(cpro, AWAY) <= 2, "one line in each worker"
            assert count_of(cpro, BACK) <= 2


def test_a_store_that_forgets_everything_costs_one_burst(tmp_path, redis):
    shared = {"address": redis.address}
    with (
        node(tmp_path / "1", shared, on_store_error="deny") as one,
        node(tmp_path / "2", shared, on_store_error="deny") as two,
    ):
        began = time.monotonic()
        forgot: list[float] = []

        def forget(how: Callable[[], object]) -> Callable[[], None]:
            def now() -> None:
                forgot.append(time.monotonic())
                how()
                forgot.append(time.monotonic())

            return now

        hammers = [Hammer(lambda: one.proxy, 8), Hammer(lambda: two.proxy, 8)]
        events = [
            (0.7, lambda: redis.run("SCRIPT", "FLUSH")),
            (1.5, forget(lambda: redis.run("FLUSHALL"))),
            (3.0, forget(redis.restart)),
        ]
        history = together(hammers, 5.5, *events)

        def part(first: float, last: float) -> list:
            return [times for times in history if first <= times[0] and times[1] <= last]

        flushing, flushed, restarting, _ = sorted(forgot)
        assert worst_overshoot(part(began, flushing), BURST, RATE) <= 0, "SCRIPT FLUSH changes nothing"
        assert worst_overshoot(part(began, restarting), 2 * BURST, RATE) <= 0
        assert worst_overshoot(part(flushed, time.monotonic()), 2 * BURST, RATE) <= 0
        assert recovers(one, "42")
        assert recovers(two, "42")
        for cpro in (one, two):
            assert count_of(cpro, AWAY) <= 2
            assert count_of(cpro, BACK) <= 2


def test_nodes_start_without_their_store_and_find_it_when_it_comes(tmp_path, redis):
    redis.stop()
    shared = {"address": redis.address}
    with (
        node(tmp_path / "1", shared, on_store_error="deny") as one,
        node(tmp_path / "2", shared, on_store_error="local") as two,
    ):
        assert [timed(one, f"u{n}")[1] for n in range(5)] == [REFUSED] * 5
        assert [timed(two, f"u{n}")[1] for n in range(5)] == [OK] * 5
        redis.start()
        assert recovers(one, "later")
        assert eventually(lambda: timed(two, f"other{time.monotonic()}")[1] == OK and count_of(two, BACK), RECOVERY_S)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_promoted_replica_costs_one_burst_and_is_found(tmp_path):
    with WatchedRedis(tmp_path / "watched") as watched:
        shared = {"sentinel_address": f"127.0.0.1:{watched.sentinel.port}", "sentinel_master_name": "mymaster"}
        with (
            node(tmp_path / "1", shared, on_store_error="deny") as one,
            node(tmp_path / "2", shared, on_store_error="deny") as two,
        ):
            fail_over(
                [one, two],
                "42",
                watched.master.stop,
                lambda: (
                    watched.named_port() == watched.replica.port
                    and watched.replica.run("INFO", "replication")["role"] == "master"
                ),
            )


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_cluster_that_fails_over_costs_one_burst_and_logs_each_change_once(tmp_path):
    with RedisCluster(tmp_path / "cluster") as cluster:
        shared = {"cluster_address": [cluster.seeds]}
        with (
            node(tmp_path / "1", shared, on_store_error="deny") as one,
            node(tmp_path / "2", shared, on_store_error="deny") as two,
        ):
            key = b"cpro:limit:42"
            master = cluster.master_of(key)
            fail_over([one, two], "42", master.stop, lambda: cluster.master_of(key) != master and cluster.is_whole())


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_users_of_other_masters_do_not_notice_a_failover(tmp_path):
    with (
        RedisCluster(tmp_path / "cluster", 3, 1, "--cluster-require-full-coverage", "no") as cluster,
        node(tmp_path / "1", {"cluster_address": [cluster.seeds]}, on_store_error="deny") as one,
    ):
        master = cluster.master_of(b"cpro:limit:42")
        names = [name for name in map(str, range(100)) if cluster.master_of(f"cpro:limit:{name}".encode()) != master]
        refused: list[float] = []
        asked = 0
        hammer = Hammer(lambda: one.proxy, 6)
        thread = threading.Thread(target=lambda: asyncio.run(hammer.run(10, (1.0, master.stop))))
        began = time.monotonic()
        thread.start()
        while time.monotonic() < began + 10:
            asked += 1
            if timed(one, names[asked % len(names)])[1] != OK:
                refused.append(time.monotonic() - began)
            time.sleep(0.01)
        thread.join()
        lines = [count_of(one, line) for line in (AWAY, BACK)]
        print(f"refused {len(refused)} of {asked}, {refused[:1]} to {refused[-1:]} s; lines {lines}")
        assert not refused
        assert max(lines) <= 2


def test_of_a_cluster_only_the_users_of_a_master_that_hangs_are_left_to_on_store_error(tmp_path):
    options = ("--cluster-require-full-coverage", "no")
    with (
        RedisCluster(tmp_path / "cluster", 3, 0, *options) as cluster,
        node(
            tmp_path / "1",
            {"cluster_address": [cluster.seeds]},
            on_store_error="deny",
            store_timeout=f"{TIMEOUT_S}s",
        ) as one,
    ):
        masters = {name: cluster.master_of(f"cpro:limit:{name}".encode()) for name in map(str, range(60))}
        assert [one.post("publish", event(user=name))[1] for name in masters] == [OK] * 60, "workers know the cluster"
        hung = masters["0"]
        hung.pause()
        try:
            answers = {name: one.post("publish", event(user=name))[1] for name in list(masters)[1:]}
        finally:
            hung.resume()
        assert {name: answer == OK for name, answer in answers.items()} == {
            name: masters[name] != hung for name in answers
        }
        assert recovers(one, "0")
        assert {line["server"] for line in log_so_far(one) if line["message"] in (AWAY, BACK)} == {hung.address}


def fail_over(nodes: list[Service], user: str, kill, is_over) -> None:
    """Kill the master under load."""
    over: list[float] = []

    def kill_it() -> None:
        kill()
        assert eventually(is_over, 20)
        over.append(time.monotonic())

    hammers = [Hammer(lambda cpro=cpro: cpro.proxy, 6, user) for cpro in nodes]

    async def until_recovered() -> None:
        await asyncio.gather(hammers[0].run(12, (1.0, kill_it)), *(hammer.run(12) for hammer in hammers[1:]))

    asyncio.run(until_recovered())
    history = [times for hammer in hammers for times in hammer.admitted]
    assert worst_overshoot(history, 2 * BURST, RATE) <= 0
    first = min(received for sent, received in history if sent > over[0])
    print("recovered after", first - over[0])
    for cpro in nodes:
        assert count_of(cpro, AWAY) <= 2, log_so_far(cpro)
        assert count_of(cpro, BACK) <= 2
