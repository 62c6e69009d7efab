"""Quotas that a store keeps: what goes out together, who hears when, and what a store that is away costs."""

import asyncio

import pytest

from cpro.errors import StoreError, StoreReplyError, StoreTimeoutError, StoreUnavailableError
from cpro.limits.leases import NOBODY, Answer, Balance
from cpro.limits.outage import Part
from cpro.limits.quota import Quota, Standing
from cpro.limits.shared_quota import SharedQuotas

TIMEOUT_S = 0.05
GRANTED = Answer(False, 1, 0, (Balance(0, 0, 9, 0),))


class Store:
    """Answers what the test says, when it says; a key's first letter is its shard."""

    def __init__(self, answer: Answer | StoreError = GRANTED):
        self.answer = answer
        self.calls: list[tuple[str, int, list]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def part_of(self, key: str) -> Part:
        return Part(ord(key[0]))

    async def take(self, shard, requests, deliver):
        await self._call("take", shard, requests, deliver)

    async def look(self, shard, requests, deliver):
        await self._call("look", shard, requests, deliver)

    async def _call(self, verb, shard, requests, deliver):
        self.calls.append((verb, shard, requests))
        await self.may_answer.wait()
        for index in range(len(requests)):
            deliver(index, self.answer)


class World:
    def __init__(self, answer: Answer | StoreError = GRANTED):
        self.store = Store(answer)
        self.errors = 0
        self.quotas = SharedQuotas(self.store, timeout_s=TIMEOUT_S, count_error=self._count)

    def _count(self) -> None:
        self.errors += 1

    def begin(self, key: str = "k", **more) -> asyncio.Future:
        told = asyncio.get_running_loop().create_future()
        assert self.quotas.ask(Quota(key, 1000, 10, **more), 0, told.set_result) is None
        return told


def in_a_loop(scenario):
    """A test whose argument is a world; nothing is left behind."""

    def test():
        async def main():
            world = World()
            await scenario(world)
            await world.quotas.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())

    test.__name__ = scenario.__name__
    return test


@in_a_loop
async def test_what_is_asked_in_one_turn_goes_out_together_by_shard(world):
    told = [world.begin(key) for key in ("a1", "a2", "b1", "a1")]
    assert await asyncio.gather(*told) == [Standing(True, 9)] * 4
    assert [(verb, shard, [request.user for request in requests]) for verb, shard, requests in world.store.calls] == [
        ("take", ord("a"), ["a1", "a2", "a1"]),
        ("take", ord("b"), ["b1"]),
    ]


@in_a_loop
async def test_nothing_is_leased_and_only_a_look_spends_nothing(world):
    await asyncio.gather(world.begin(score=3), world.begin(score=3, dry_run=True), world.begin(score=0))
    (_, _, (taken,)), (verb, _, (dry, left)) = world.store.calls
    assert verb == "look"
    assert [(one.need, one.score) for one in (taken, dry, left)] == [(1, 3), (1, 3), (0, 1)]
    assert {ask.lease_id for request in (taken, dry, left) for ask in request.asks} == {NOBODY}


@pytest.mark.parametrize(("wait_ns", "left"), [(5_208_000, 0), (-1, 7)])
def test_a_refusal_tells_how_long_to_wait(wait_ns, left):
    @in_a_loop
    async def scenario(world):
        world.store.answer = Answer(False, 0, wait_ns, (Balance(0, 0, left, 0),))
        assert await world.begin() == Standing(False, left, wait_ns)

    scenario()


@in_a_loop
async def test_nobody_waits_longer_than_the_timeout_and_a_late_answer_does_no_harm(world):
    world.store.may_answer.clear()
    loop = asyncio.get_running_loop()
    began, told = loop.time(), world.begin()
    assert await told is None
    assert TIMEOUT_S * 0.9 <= loop.time() - began < TIMEOUT_S * 10
    world.store.may_answer.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await world.begin() == Standing(True, 9), "the shard is known to be back"


@pytest.mark.parametrize("error", [StoreUnavailableError("gone"), StoreTimeoutError("late")])
def test_a_shard_that_failed_is_left_alone_for_a_moment(error):
    @in_a_loop
    async def scenario(world):
        world.store.answer = error
        assert await asyncio.gather(*(world.begin() for _ in range(3))) == [None] * 3
        assert world.errors == 3
        assert await world.begin() is None
        assert len(world.store.calls) == 1
        assert await world.begin("other shard") is None
        assert len(world.store.calls) == 2
        world.store.answer = GRANTED
        await asyncio.sleep(0.26)
        assert await world.begin() == Standing(True, 9)

    scenario()


@in_a_loop
async def test_an_error_about_one_key_leaves_the_others_alone(world):
    world.store.answer = StoreReplyError("WRONGTYPE")
    assert await world.begin() is None
    world.store.answer = GRANTED
    assert await world.begin() == Standing(True, 9)


@in_a_loop
async def test_a_stop_tells_those_who_wait(world):
    world.store.may_answer.clear()
    told = world.begin()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await world.quotas.close()
    assert await told is None
