"""A worker's leaser against a store that is late, away or broken: everybody is told once, nothing is left behind."""

import asyncio
import gc
import os
import subprocess
import time
from collections.abc import Callable

import pytest

from cpro._fast.buckets import Layer, Plan
from cpro._fast.leasetable import LeasePlan, LeaseTable
from cpro.clock import boot_ns
from cpro.errors import StoreReplyError, StoreUnavailableError
from cpro.limits.gate import BY_ADDRESS, USER
from cpro.limits.leaser import BUSY_RETRY_S, PRESSED_NS, Leaser, Outcome
from cpro.limits.leases import Answer, Balance, Limit, Policy
from cpro.limits.outage import Part
from cpro.limits.rules import Leased

PATIENT_S, SHORT_S = 30.0, 0.1
"""Timeouts of those who wait: one that no machine needs, and one for tests of what follows."""


def plan_of(*identities: int, tokens: int = 100) -> Leased:
    step_ns = 10**9 // tokens
    limits = tuple(Limit(identity, step_ns, tokens * step_ns) for identity in identities)
    layers = [Layer(2, 1, identity, step_ns, tokens * step_ns, 0, 0) for identity in identities]
    leases = LeasePlan(identities, limits)
    return Leased(leases, limits, Plan([], (False,) * 3), Plan(layers, (False,) * 3), is_all=True)


class Store:
    """Admits what is asked and grants all extra, when `hold` lets it; remembers every request."""

    def __init__(self, shards: int = 1) -> None:
        self.shards = shards
        self.requests: list = []
        self.granted: dict[bytes, int] = {}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None
        self.server_of: Callable[[str], str | None] = lambda user: None

    def part_of(self, user: str) -> Part:
        return Part(len(user) % self.shards, self.server_of(user))

    async def take(self, shard: int, requests, deliver) -> None:
        self.requests += requests
        await self.may_answer.wait()
        await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        for index, request in enumerate(requests):
            balances = []
            for ask in request.asks:
                total = self.granted.get(ask.lease_id, 0) + ask.extra
                self.granted[ask.lease_id] = total
                balances.append(Balance(total, ask.extra, 50, ask.acked))
            deliver(index, Answer(False, request.need, 0, tuple(balances)))


class Bench:
    """A leaser over a fake store and a real table."""

    def __init__(self, path: str, shards: int, timeout_s: float) -> None:
        self.table = LeaseTable.create_or_open(path, 10_000, bytes(16), boot_ns())
        self.store = Store(shards)
        self.leaser = Leaser(
            self.store,  # type: ignore[arg-type]
            self.table,
            Policy(),
            timeout_s=timeout_s,
            count_tokens=lambda event, tokens: None,
            count_error=lambda shard: None,
        )
        self.told: list[Outcome] = []

    def ask(self, leased: Leased, user: str = "42", kind: int = USER) -> list[Outcome]:
        told: list[Outcome] = []
        self.leaser.ask(user, kind, leased, told.append)
        return told

    def lease(self, leased: Leased, tokens: int, user: str = "42") -> None:
        """Put tokens in hand, as if the store had granted them."""
        for place in range(len(leased.limits)):
            record = self.table.claim(leased.plan, place, user, USER, os.getpid(), boot_ns())
            assert record
            now_ns = boot_ns()
            record.granted, record.tokens = record.granted + tokens, record.tokens + tokens
            record.deadline_ns, record.asked_ns = now_ns + 9 * 10**9, now_ns
            record.release()

    def tokens(self, leased: Leased, user: str = "42") -> list[int]:
        found = []
        for place in range(len(leased.limits)):
            record = self.table.peek_tag(self.table.tag_of(leased.plan, place, user, USER))
            found.append(record.in_hand(boot_ns()) if record else 0)
        return found


async def until(check: Callable[[], object]) -> None:
    """Wait until something has come true."""
    async with asyncio.timeout(PATIENT_S):
        while not check():
            await asyncio.sleep(0.001)


def run(path, scenario: Callable, shards: int = 1, timeout_s: float = PATIENT_S) -> None:
    async def main() -> None:
        bench = Bench(str(path / "leases"), shards, timeout_s)
        try:
            await scenario(bench)
        finally:
            bench.store.may_answer.set()
            await bench.leaser.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not bench.leaser._waiting
        assert not bench.leaser._waiting.has_timer
        gc.collect()

    asyncio.run(main())


@pytest.fixture
def other_worker():
    """A living process that can be found asking."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_each_of_many_is_told_once_and_nothing_is_left(tmp_path):
    async def scenario(bench: Bench) -> None:
        one, two = plan_of(1, 9), plan_of(2, 9)
        told = [bench.ask(plan, str(n % 7)) for n in range(200) for plan in (one, two)]
        await until(lambda: all(told))
        assert told == [[Outcome.GRANTED]] * 400

    run(tmp_path, scenario)


def test_two_plans_of_a_user_take_turns(tmp_path):
    async def scenario(bench: Bench) -> None:
        busy, quiet = plan_of(1, tokens=1), plan_of(2, tokens=1)
        heard: list[Outcome] = []

        def again(outcome: Outcome) -> None:
            bench.leaser.ask("42", USER, busy, again)  # somebody always waits for this plan

        for _ in range(3):
            bench.leaser.ask("42", USER, busy, again)
        await until(lambda: len(bench.store.requests) > 3)
        before = len(bench.store.requests)
        bench.leaser.ask("42", USER, quiet, lambda outcome: heard.append(outcome))
        await until(lambda: quiet.limits[0] in [request.asks[0].limit for request in bench.store.requests])
        assert len(bench.store.requests) <= before + 2, "the busy one was asked for once more at most"
        await until(lambda: heard)
        assert heard == [Outcome.GRANTED]

    run(tmp_path, scenario)


def test_a_plan_that_another_worker_asks_about_holds_up_no_other(tmp_path, other_worker):
    async def scenario(bench: Bench) -> None:
        taken, free = plan_of(1), plan_of(2)
        record = bench.table.claim(taken.plan, 0, "42", USER, other_worker, boot_ns())
        held, told = bench.ask(taken), bench.ask(free)
        await until(lambda: told)
        assert (held, told) == ([], [Outcome.GRANTED])
        record.release()
        await until(lambda: held)
        assert held == [Outcome.GRANTED]

    run(tmp_path, scenario)


def test_many_who_find_another_worker_asking_look_again_with_one_timer(tmp_path, other_worker):
    async def scenario(bench: Bench) -> None:
        leased = plan_of(1)
        record = bench.table.claim(leased.plan, 0, "42", USER, other_worker, boot_ns())
        looks = 0
        begin = bench.leaser._begin

        def counted(*arguments, **keywords):
            nonlocal looks
            looks += 1
            return begin(*arguments, **keywords)

        bench.leaser._begin = counted  # type: ignore[method-assign]
        for _ in range(50):
            bench.ask(leased)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        looks, began = 0, time.monotonic()
        await asyncio.sleep(0.06)
        assert 1 <= looks <= (time.monotonic() - began) / BUSY_RETRY_S + 1, "one by one, however many wait"
        record.release()

    run(tmp_path, scenario)


def test_a_stop_gives_back_all_plans_of_a_user_also_what_is_just_being_asked_for(tmp_path):
    async def scenario(bench: Bench) -> None:
        one, two, three = plan_of(1, 9), plan_of(2, 9), plan_of(3)
        for leased in (one, two, three):
            bench.lease(leased, 20)
            bench.leaser.refill("42", USER, leased)
        bench.store.may_answer.clear()
        await until(lambda: bench.store.requests)  # the refill of one of them is under way
        closing = asyncio.ensure_future(bench.leaser.close())
        await asyncio.sleep(0.05)
        bench.store.may_answer.set()
        await closing
        assert [bench.tokens(leased) for leased in (one, two, three)] == [[0, 0], [0, 0], [0]]

    run(tmp_path, scenario)


def test_a_stop_tells_those_who_wait_and_ends_when_a_shard_hangs(tmp_path):
    async def scenario(bench: Bench) -> None:
        bench.leaser.configure((), PATIENT_S)
        bench.store.may_answer.clear()
        told = [bench.ask(plan_of(1), str(n)) for n in range(5)] + [bench.ask(plan_of(2), "1")]
        await until(lambda: bench.store.requests)
        await asyncio.wait_for(bench.leaser.close(), PATIENT_S / 2)
        assert told == [[Outcome.STORE_AWAY]] * 6
        late = bench.ask(plan_of(1))
        await asyncio.sleep(0)
        assert late == [Outcome.STORE_AWAY]

    run(tmp_path, scenario)


def test_one_whose_answer_fails_takes_nobody_along(tmp_path):
    async def scenario(bench: Bench) -> None:
        def broken(outcome: Outcome) -> None:
            raise ZeroDivisionError

        leased = plan_of(1)
        bench.leaser.ask("1", USER, leased, broken)
        told = [bench.ask(leased, "1"), bench.ask(leased, "2")]
        await until(lambda: all(told))
        assert told == [[Outcome.GRANTED]] * 2
        bench.leaser.configure([leased], SHORT_S)
        bench.store.may_answer.clear()
        bench.leaser.ask("3", USER, leased, broken)
        late = bench.ask(leased, "4")
        await until(lambda: late)
        assert late == [Outcome.STORE_AWAY]

    run(tmp_path, scenario)


def test_a_shard_that_is_away_is_tried_by_one_while_others_need_not_wait(tmp_path):
    async def scenario(bench: Bench) -> None:
        leased = plan_of(1)
        bench.leaser.configure([leased], PATIENT_S)
        bench.store.error = StoreUnavailableError("gone")
        assert not bench.leaser.is_away("1", USER)
        bench.ask(leased, "1")
        await until(lambda: bench.leaser.is_away("1", USER))
        await until(lambda: not bench.leaser.is_away("1", USER))
        bench.store.error = None
        bench.store.may_answer.clear()  # it hangs
        bench.ask(leased, "2")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert bench.leaser.is_away("3", USER)
        bench.store.may_answer.set()
        await until(lambda: not bench.leaser.is_away("3", USER))

    run(tmp_path, scenario)


def test_an_error_about_one_user_leaves_the_others_alone(tmp_path):
    async def scenario(bench: Bench) -> None:
        leased = plan_of(1)
        bench.store.error = StoreReplyError("WRONGTYPE")
        told = bench.ask(leased, "1")
        await until(lambda: told)
        assert told == [Outcome.STORE_AWAY]
        assert not bench.leaser.is_away("2", USER)
        assert not bench.leaser.keeps_locally("2", USER, boot_ns())

    run(tmp_path, scenario)


def test_after_a_reload_only_the_new_limit_is_asked_for(tmp_path):
    async def scenario(bench: Bench) -> None:
        old, new, gone = plan_of(1), plan_of(1, tokens=10), plan_of(2)
        bench.leaser.configure([old, gone], PATIENT_S)
        told = [bench.ask(old), bench.ask(gone)]
        await until(lambda: all(told))
        bench.lease(old, 20)
        bench.lease(gone, 20)
        bench.leaser.configure([new], PATIENT_S)
        bench.store.requests.clear()
        await until(lambda: [bench.tokens(old), bench.tokens(gone)] == [[0], [0]] and len(bench.store.requests) > 1)
        given_back = [(ask.limit, ask.returned) for request in bench.store.requests for ask in request.asks]
        assert given_back == [(old.limits[0], 20), (gone.limits[0], 20)], "by the limits they were leased under"
        bench.store.requests.clear()
        bench.leaser.refill("42", USER, new)
        await until(lambda: bench.store.requests)
        assert {ask.limit for request in bench.store.requests for ask in request.asks} == {new.limits[0]}

    run(tmp_path, scenario)


def test_what_was_leased_by_the_old_limit_goes_back_before_the_new_one_is_asked_for(tmp_path):
    async def scenario(bench: Bench) -> None:
        old, new = plan_of(1), plan_of(1, tokens=10)
        bench.leaser.configure([old], PATIENT_S)
        bench.lease(old, 20)
        first = bench.ask(old)
        await until(lambda: first)
        bench.leaser.configure([new], PATIENT_S)
        told = bench.ask(new)
        await until(lambda: told)
        assert told == [Outcome.GRANTED]
        asked = [(request.need, request.asks[0].limit) for request in bench.store.requests]
        assert asked == [(0, old.limits[0]), (1, new.limits[0])]
        assert bench.store.requests[0].asks[0].held == 0

    run(tmp_path, scenario)


def test_a_shorter_timeout_holds_for_those_who_wait_already(tmp_path):
    async def scenario(bench: Bench) -> None:
        leased = plan_of(1)
        bench.leaser.configure([leased], 10 * PATIENT_S)
        bench.store.may_answer.clear()
        told = bench.ask(leased)
        await until(lambda: bench.store.requests)
        bench.leaser.configure([leased], SHORT_S)
        await until(lambda: told)
        assert told == [Outcome.STORE_AWAY]

    run(tmp_path, scenario)


def test_a_user_and_an_address_of_the_same_name_have_keys_of_their_own(tmp_path):
    async def scenario(bench: Bench) -> None:
        leased = plan_of(1)
        bench.ask(leased, "10.0.0.1", USER)
        bench.ask(leased, "10.0.0.1", BY_ADDRESS)
        await until(lambda: len(bench.store.requests) == 2)
        assert len({request.user for request in bench.store.requests}) == 2
        assert "10.0.0.1" in {request.user for request in bench.store.requests}

    run(tmp_path, scenario)


def test_an_address_is_away_with_the_part_that_has_its_key(tmp_path):
    async def scenario(bench: Bench) -> None:
        bench.store.server_of = lambda key: key[0]
        bench.leaser.configure([plan_of(1)], PATIENT_S)
        bench.store.error = StoreUnavailableError("gone")
        bench.ask(plan_of(1), "10.0.0.1", BY_ADDRESS)
        await until(lambda: bench.leaser.is_away("10.0.0.1", BY_ADDRESS))
        assert not bench.leaser.is_away("10.0.0.1", USER)

    run(tmp_path, scenario)


def test_who_came_once_is_forgotten_with_the_answer(tmp_path):
    async def scenario(bench: Bench) -> None:
        leased = plan_of(1)
        loop, known = asyncio.get_running_loop(), []
        look = lambda: known.append(len(bench.leaser._users))  # noqa: E731
        bench.leaser.ask("42", USER, leased, lambda _: loop.call_soon(look))
        await until(lambda: known)
        assert known == [0]

    run(tmp_path, scenario)


def test_users_who_have_nothing_here_are_forgotten(tmp_path):
    async def scenario(bench: Bench) -> None:
        leased = plan_of(1)
        for n in range(5000):
            bench.ask(leased, str(n))
            bench.leaser.on_refused(str(-n), USER, leased, boot_ns() - PRESSED_NS)
        await until(lambda: not bench.leaser._users)

    run(tmp_path, scenario, timeout_s=SHORT_S)
