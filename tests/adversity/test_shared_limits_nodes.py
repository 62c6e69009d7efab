"""Nodes that share limits are killed, stopped, reloaded and hammered: contract 4.2 holds over all of them together."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest

from tests.e2e.test_shared_limits import BURST, RATE, STARVED, check, node, together
from tests.support.envelope import least_admitted, worst_overshoot
from tests.support.hammer import Hammer
from tests.support.processes import eventually, resident_bytes
from tests.support.redis import RedisServer
from tests.support.service import REFUSED, Service, event, exchange, limits

OK = {"result": {}}


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def pair(tmp_path, redis):
    """Two nodes with a `client.rate_limit` section."""
    with ExitStack() as running:
        yield lambda section, **more: [
            running.enter_context(Service(tmp_path / str(number), settings(redis, section, **more)))
            for number in (1, 2)
        ]


def settings(redis: RedisServer, section: dict, **more: object) -> dict:
    proxy = {"without_upstream": "allow"}
    section = with_more(section, **{"store_timeout": "5s", **section["client"]["rate_limit"]})
    return {**section, "redis": {"address": redis.address}, "proxy": proxy, "workers": 2, **more}


def with_more(section: dict, **rate_limit: object) -> dict:
    return {"client": {"rate_limit": {**section["client"]["rate_limit"], **rate_limit}}}


def scripts_run(redis: RedisServer) -> int:
    stats = redis.run("INFO", "commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


def answers_of(nodes: list[Service], times: int, kind: str = "publish", **fields: object) -> list[object]:
    """What so many events in turn at one node and the other are answered."""
    return [nodes[number % len(nodes)].post(kind, event(**fields))[1] for number in range(times)]


# --- kills and stops


def test_a_killed_node_and_a_killed_worker_overshoot_nothing_and_hold_nobody_up(tmp_path, redis):
    address = {"address": redis.address}
    with node(tmp_path / "1", address) as one, node(tmp_path / "2", address) as two:
        hammers = [Hammer(lambda: one.proxy, 16), Hammer(lambda: two.proxy, 16)]
        killed: list[float] = []

        def kill_a_node() -> None:
            two.kill_all()
            killed.append(time.monotonic())

        together(hammers, 4, (2.0, kill_a_node), (1.0, lambda: os.kill(one.workers()[0], signal.SIGKILL)))
        check(hammers)
        rest = [sum(sent > killed[0] for sent, _ in times) for times in (hammers[0].admitted, hammers[1].admitted)]
        assert rest[0] > rest[1] == 0, "one has all of it now"
        two.start()


def test_users_whom_a_dead_worker_asked_about_are_served_by_the_others_at_once(tmp_path, redis):
    address = {"address": redis.address, "io_timeout": "15s"}
    with node(tmp_path / "1", address, on_store_error="deny", store_timeout="8s") as one:
        redis.pause()
        connections = [one.connect() for _ in range(40)]
        for number, connection in enumerate(connections):
            body = str(event(user=f"u{number}", channel="news")).replace("'", '"')
            connection.request("POST", "/centrifugo/publish", body, {"Content-Type": "application/json"})
        time.sleep(0.1)
        os.kill(one.workers()[0], signal.SIGKILL)
        redis.resume()
        answers = [one.post("publish", event(user=f"u{number}"))[1] for number in range(40)]
        assert answers == [OK] * 40, "whoever waits for a dead worker's request is refused in the end"


def test_what_killed_workers_had_leased_their_successors_spend(pair):
    one, two = pair(limits("redis_user_command", publish=(100, "1h")))
    assert answers_of([one], 40) == [OK] * 40
    tokens = {event: one.metric(f'cpro_lease_tokens_total{{event="{event}"}}') for event in ("granted", "returned")}
    assert tokens["granted"] - tokens["returned"] > 40, "more than was spent is in hand"
    for worker in one.workers():
        os.kill(worker, signal.SIGKILL)
    for _ in range(2):
        one.wait_for("worker died, starting it again")
    assert answers_of([one], 61) == [OK] * 60 + [REFUSED]
    assert answers_of([two], 1) == [REFUSED]


def test_a_node_stopped_under_load_gives_back_all_it_has(pair):
    one, two = pair(limits("redis_user_command", publish=(400, "24h"), rpc=(400, "24h"), total=(1000, "24h")))
    admitted = []

    def demand(kind: str) -> None:
        connection = one.connect()
        with suppress(OSError, Exception):
            while True:
                if exchange(connection, f"/centrifugo/{kind}", event(method="m"))[1] == OK:
                    admitted.append(kind)
                time.sleep(0.004)

    threads = [threading.Thread(target=demand, args=(kind,)) for kind in ("publish", "rpc") for _ in range(2)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(admitted) > 150, 20)
    assert one.stop() == 0
    for thread in threads:
        thread.join(5)
    for kind in ("publish", "rpc"):
        connection = two.connect()
        left = 0
        while exchange(connection, f"/centrifugo/{kind}", event(method="m"))[1] == OK:
            left += 1
        assert 398 <= admitted.count(kind) + left <= 401, "two connections may have lost their last answer"


# --- reloads


def test_a_reload_on_one_node_and_then_the_other_stays_below_the_larger_limit(tmp_path, redis):
    address = {"address": redis.address}
    with node(tmp_path / "1", address) as one, node(tmp_path / "2", address) as two:
        hammers = [Hammer(lambda: one.proxy, 12), Hammer(lambda: two.proxy, 12)]

        def reload(which: Service, *publish: object) -> Callable[[], None]:
            def now() -> None:
                which.reload(
                    {**which.settings, **with_more(limits("redis_user_command", publish=publish), store_timeout="5s")}
                )
                reloaded.append(time.monotonic())

            return now

        def admitted_since(moment: float, hammers: list[Hammer]) -> list[tuple[float, float]]:
            return [times for hammer in hammers for times in hammer.admitted if times[0] > moment]

        reloaded: list[float] = []
        history = together(hammers, 4, (1.0, reload(one, 50, "1s")), (1.6, reload(two, 50, "1s")))
        assert worst_overshoot(history, BURST, RATE) <= 0
        late = admitted_since(max(reloaded), hammers)
        assert late
        assert worst_overshoot(late, 50, 50) <= 0
        hammers = [Hammer(lambda: one.proxy, 12), Hammer(lambda: two.proxy, 12)]
        reloaded.clear()
        history = together(hammers, 2.5, (0.3, reload(two, 100, "1s", 60)), (0.6, reload(one, 100, "1s", 60)))
        assert worst_overshoot(history, 60, 100) <= 0, "the share used is kept: no fresh burst"
        refused = [times for hammer in hammers for times in hammer.refused if times[0] > max(reloaded)]
        assert len(admitted_since(max(reloaded), hammers)) >= STARVED * (least_admitted(refused, 60, 100) - 60)


# --- what Redis is asked


def test_an_abusive_user_costs_redis_five_calls_a_second_while_others_are_served(tmp_path, redis):
    address = {"address": redis.address}
    with node(tmp_path / "1", address) as one, node(tmp_path / "2", address) as two:
        together([Hammer(lambda: one.proxy, 16), Hammer(lambda: two.proxy, 16)], 0.5)
        before, began = scripts_run(redis), time.monotonic()
        answers: list[object] = []

        def well_behaved() -> None:
            connection = two.connect()
            for number in range(25):
                answers.append(exchange(connection, "/centrifugo/publish", event(user=f"cold{number}"))[1])
                time.sleep(0.05)

        together([Hammer(lambda: one.proxy, 16), Hammer(lambda: two.proxy, 16)], 3, (0.5, well_behaved))
        asked, lasted = scripts_run(redis) - before, time.monotonic() - began
        assert answers == [OK] * 25
        assert asked - 25 <= 2 * (5 * lasted + 1), "calls of two nodes"


def test_the_first_operation_of_a_user_costs_one_round_trip(tmp_path, redis):
    with node(tmp_path / "1", {"address": redis.address}) as one:
        assert one.post("publish", event(user="who brings the script"))[1] == OK
        before = scripts_run(redis)
        assert [one.post("publish", event(user=f"new{n}"))[1] for n in range(20)] == [OK] * 20
        assert scripts_run(redis) - before == 20


@pytest.mark.parametrize(
    ("rate", "interval_s", "burst", "seconds"),
    [(20, 1, 2, 3), (5, 1, 1, 3), (1, 1, 1, 3), (3, 10, 3, 4), (100, 1, 10, 3), (500, 1, 20, 3)],
)
def test_a_small_bucket_costs_no_more_calls_than_a_large_one(tmp_path, redis, rate, interval_s, burst, seconds):
    section = limits("redis_user_command", publish=(rate, f"{interval_s}s", burst))
    with Service(tmp_path / "1", settings(redis, section)) as one:
        before, began = scripts_run(redis), time.monotonic()
        hammer = Hammer(lambda: one.proxy, 8)
        history = together([hammer], seconds)
        lasted = time.monotonic() - began
        calls = scripts_run(redis) - before
    per_s = rate / interval_s
    print(f"{calls / lasted:.1f} calls a second, {len(history) / (burst + per_s * lasted):.0%} admitted")
    assert worst_overshoot(history, burst, per_s) <= 0
    assert len(history) >= STARVED * least_admitted(hammer.refused, burst, per_s)
    assert calls <= burst + 10 * lasted + 5, "until it streams, half of it is asked for each time"


# --- who is limited, by what


def test_overrides_default_and_total_are_shared_by_both_nodes(pair):
    override = {"enabled": True, "method_overrides": [{"method": "m", **_buckets(2)}], **_buckets(3)}
    nodes = pair(limits("redis_user_command", rpc=override, default=(4, "1h"), total=(10, "1h")))
    assert answers_of(nodes, 4, "rpc", method="m") == [OK] * 2 + [REFUSED] * 2
    assert answers_of(nodes, 5, "rpc", method="other") == [OK] * 3 + [REFUSED] * 2
    assert answers_of(nodes, 6) == [OK] * 4 + [REFUSED] * 2
    assert answers_of(nodes, 3, "subscribe", channel="c") == [REFUSED] * 3, "default is shared by operations"
    assert answers_of(nodes, 12, user="other") == [OK] * 4 + [REFUSED] * 8


def _buckets(rate: int) -> dict:
    return {"enabled": True, "buckets": [{"interval": "1h", "rate": rate}]}


def test_total_holds_over_both_nodes_whatever_else_would_allow(pair):
    nodes = pair(limits("redis_user_command", publish=(20, "1h"), rpc=(20, "1h"), total=(25, "1h")))
    admitted = answers_of(nodes, 18).count(OK) + answers_of(nodes, 18, "rpc", method="m").count(OK)
    assert 25 - 6 <= admitted <= 25, "a lease of one node may lie idle for some seconds"


def test_anonymous_exempt_and_dry_run_users_are_told_apart_on_both_nodes(pair):
    section = with_more(limits("redis_user_command", publish=(3, "1h")), exempt_users=["boss"], anonymous="client")
    nodes = pair(section)
    assert answers_of(nodes, 5, user="", client="a") == [OK] * 3 + [REFUSED] * 2
    assert answers_of(nodes, 5, user="", client="b") == [OK] * 3 + [REFUSED] * 2
    assert answers_of(nodes, 5, user="a") == [OK] * 3 + [REFUSED] * 2, "a user of that name is somebody else"
    assert answers_of(nodes, 6, user="boss") == [OK] * 6
    by_address = with_more(section, anonymous="ip")
    for one in nodes:
        one.reload({**one.settings, **by_address, "proxy": {**one.settings["proxy"], "ip_header": "X-Real-IP"}})

    def ask(times: int, address: str) -> list[object]:
        return [
            nodes[n % 2].post("publish", event(user="", client=f"c{n}"), {"X-Real-IP": address})[1]
            for n in range(times)
        ]

    assert ask(5, "192.0.2.1") == [OK] * 3 + [REFUSED] * 2
    assert ask(4, "192.0.2.2") == [OK] * 3 + [REFUSED]
    for one in nodes:
        one.reload({**one.settings, **with_more(section, dry_run=True)})
    assert answers_of(nodes, 6, user="tried") == [OK] * 6
    counted = [one.metric('cpro_limit_checks_total{block="redis",verdict="dry_run"}') for one in nodes]
    assert sum(counted) == 3


# --- memory


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tens_of_thousands_of_users_leave_nothing_behind(tmp_path, redis):
    with node(tmp_path / "1", {"address": redis.address}) as one:

        async def visit(name: str) -> None:
            async def some(first: int) -> None:
                for user in range(first, 20_000, 20):
                    await hammers[first].run_once(f"{name}{user}")

            hammers = [_Caller(one.proxy) for _ in range(20)]
            await asyncio.gather(*(some(first) for first in range(20)))
            for caller in hammers:
                caller.close()

        sizes = []
        for number in range(5):
            asyncio.run(visit(f"{number}-"))
            time.sleep(11)
            sizes.append([resident_bytes(pid) for pid in one.workers()])
        assert one.metric('cpro_store_errors_total{store="limits"}') == 0
        print(sizes)
        for first, last in zip(sizes[1], sizes[-1], strict=True):
            assert last - first < 2_000_000, sizes
        assert eventually(lambda: redis.run("DBSIZE") == 0, 15)


class _Caller:
    """One connection that publishes for one user after the other."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._writer: asyncio.StreamWriter | None = None

    async def run_once(self, user: str) -> None:
        if self._writer is None:
            host, port = self._address.rsplit(":", 1)
            self._reader, self._writer = await asyncio.open_connection(host, int(port))
        self._writer.write(Hammer(lambda: "", user=user).request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        assert await self._reader.readexactly(length) == b'{"result":{}}'

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
