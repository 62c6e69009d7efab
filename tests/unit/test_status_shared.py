"""Statuses that a store keeps: what is folded, what goes out together, what is kept while the store is away."""

import asyncio
import os

import pytest

from cpro._fast.statusfold import FoldTable
from cpro.errors import StoreReplyError, StoreTimeoutError, StoreUnavailableError
from cpro.status import service
from cpro.status.service import SharedStatuses
from cpro.status.shard import FIRST_PAUSE_S, LAST_PAUSE_S, READS
from cpro.status.times import UNKNOWN, later
from tests.support import virtual

TIMEOUT_S = 0.2
AWAY = StoreUnavailableError("away")


class Store:
    """Two shards in memory; a user's first letter is the shard. Fails, or waits, as the test says."""

    def __init__(self):
        self.users: dict[str, tuple[int, int]] = {}
        self.calls: list[tuple] = []
        self.error: dict[int, Exception] = {}
        self.refused: set[str] = set()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def __len__(self):
        return 2

    def shard_of(self, user: str) -> int:
        return int(user[0])

    async def write(self, shard, updates):
        self.calls.append(("write", shard, dict(updates)))
        await self.may_answer.wait()
        error = self.error.get(shard)
        if error is None:
            for user, times in updates:
                if user not in self.refused:
                    self.users[user] = later(times, self.users.get(user, UNKNOWN))
        return [StoreReplyError("WRONGTYPE") if user in self.refused else error for user, _ in updates]

    async def read(self, shard, users):
        self.calls.append(("read", shard, list(users)))
        await self._wait(shard)
        return [self.users.get(user, UNKNOWN) for user in users]

    async def forget(self, shard, users):
        self.calls.append(("forget", shard, list(users)))
        await self._wait(shard)
        for user in users:
            self.users.pop(user, None)

    async def _wait(self, shard):
        await self.may_answer.wait()
        if shard in self.error:
            raise self.error[shard]

    def written(self) -> list[tuple]:
        return [call[1:] for call in self.calls if call[0] == "write"]


class World:
    def __init__(self, most_kept: int = 1000, expire_s: int = 3600):
        self.now = 1000
        self.store = Store()
        self.errors = self.lost = 0
        memory = os.memfd_create("fold")
        path = f"/proc/{os.getpid()}/fd/{memory}"
        self.fold = FoldTable.create(path, 4096)
        os.close(memory)
        self.statuses = SharedStatuses(
            self.store,
            self.fold,
            timeout_s=TIMEOUT_S,
            expire_s=expire_s,
            count_error=self._count_error,
            count_lost=self._count_lost,
            most_kept=most_kept,
            clock=lambda: self.now,
        )

    def _count_error(self) -> None:
        self.errors += 1

    def _count_lost(self, updates: int) -> None:
        self.lost += updates

    async def ask(self, *users: str):
        told = asyncio.get_running_loop().create_future()
        assert self.statuses.ask(users, told.set_result) is None
        return await told

    async def forget(self, *users: str):
        told = asyncio.get_running_loop().create_future()
        assert self.statuses.forget(users, told.set_result) is None
        return await told

    async def until(self, condition) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


def in_a_loop(scenario=None, **options):
    """A test whose argument is a world, in which time passes only while everybody waits; nothing is left behind."""
    if scenario is None:
        return lambda scenario: in_a_loop(scenario, **options)

    def test():
        async def main():
            world = World(**options)
            await scenario(world)
            world.store.may_answer.set()
            await world.statuses.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        virtual.run(main())

    return test


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@in_a_loop
async def test_updates_of_one_turn_go_out_in_one_call_a_shard(world):
    for user in ("0a", "1b", "0c"):
        world.statuses.mark_active(user)
    world.statuses.mark_online("0d")
    world.statuses.update(["1e", "1f"])
    assert world.store.calls == []
    await turn()
    now = (1000, 1000)
    assert world.store.written() == [
        (0, {"0a": now, "0c": now, "0d": (0, 1000)}),
        (1, {"1b": now, "1e": (1000, 0), "1f": (1000, 0)}),
    ]


@in_a_loop
async def test_of_a_second_one_update_is_written_and_of_a_minute_one_online(world):
    for second in (1000, 1000, 1001):
        world.now = second
        for _ in range(3):
            world.statuses.mark_active("0a")
            world.statuses.mark_online("0a")
            world.statuses.update(["0a"])
            await turn()
    assert world.store.written() == [(0, {"0a": (1000, 1000)}), (0, {"0a": (1001, 1001)})]
    for second in (1002, 1060, 1061, 1100):
        world.now = second
        world.statuses.mark_online("0a")
        await turn()
    assert world.store.written()[2:] == [(0, {"0a": (0, 1061)})]


@in_a_loop(expire_s=10)
async def test_where_users_are_soon_forgotten_online_is_written_more_often(world):
    for second in range(1000, 1011):
        world.now = second
        world.statuses.mark_online("0a")
        await turn()
    assert [updates["0a"][1] for _, updates in world.store.written()] == [1000, 1005, 1010]


@in_a_loop
async def test_what_comes_while_a_call_is_under_way_goes_out_after_it(world):
    world.store.may_answer.clear()
    world.statuses.mark_active("0a")
    await turn()
    for second in (1001, 1002):
        world.now = second
        world.statuses.mark_active("0a")
        world.statuses.mark_active("0b")
        await turn()
    assert len(world.store.written()) == 1
    world.store.may_answer.set()
    await turn()
    assert world.store.written()[1:] == [(0, {"0a": (1002, 1002), "0b": (1002, 1002)})]


@in_a_loop
async def test_a_worker_sees_what_it_was_told_before_the_store_does(world):
    world.store.users["0a"] = (5, 2000)
    world.store.may_answer.clear()
    world.statuses.mark_active("0a")
    await turn()
    world.now = 1001
    world.statuses.mark_active("0b")
    answer = asyncio.ensure_future(world.ask("0b", "1x", "0a", "0b"))
    await turn()
    world.store.may_answer.set()
    assert await answer == [(1001, 1001), (0, 0), (1000, 2000), (1001, 1001)]


@in_a_loop
async def test_shards_are_asked_side_by_side_and_order_is_kept(world):
    world.store.users = {"0a": (1, 1), "1b": (2, 2)}
    world.store.may_answer.clear()
    answer = asyncio.ensure_future(world.ask("1b", "0a", "1c", "1b"))
    await turn()
    assert world.store.calls == [("read", 1, ["1b", "1c", "1b"]), ("read", 0, ["0a"])]
    world.store.may_answer.set()
    assert await answer == [(2, 2), (1, 1), (0, 0), (2, 2)]


@in_a_loop
async def test_of_many_reads_a_few_are_under_way_and_all_are_answered(world):
    world.store.users = {"0a": (1, 1)}
    world.store.may_answer.clear()
    answers = [asyncio.ensure_future(world.ask("0a")) for _ in range(50)]
    await turn()
    assert len(world.store.calls) == READS
    world.store.may_answer.set()
    assert await asyncio.gather(*answers) == [[(1, 1)]] * 50


@in_a_loop
async def test_who_waited_too_long_for_its_turn_does_not_hold_that_against_the_store(world):
    shard = world.statuses._shards[0]
    for _ in range(READS):
        await shard.room.acquire()
    assert await world.ask("0a") is None
    assert not shard.is_away
    for _ in range(READS):
        shard.room.release()
    assert await world.ask("0a") == [(0, 0)]


@in_a_loop
async def test_nobody_is_no_question(world):
    assert await world.ask() == []
    assert world.store.calls == []


@in_a_loop
async def test_the_deleted_do_not_come_back_from_what_was_under_way(world):
    world.store.may_answer.clear()
    world.statuses.mark_active("0a")
    await turn()
    world.now = 1001
    world.statuses.mark_active("0a")
    gone = asyncio.ensure_future(world.forget("0a", "1b"))
    await turn()
    assert [call[:2] for call in world.store.calls] == [("write", 0), ("forget", 1)]
    world.store.may_answer.set()
    assert await gone is True
    await turn()
    assert world.store.users == {}
    world.statuses.mark_active("0a")
    await turn()
    assert world.store.users == {"0a": (1001, 1001)}, "and is let through at once when it is there again"


@in_a_loop
async def test_the_deleted_do_not_come_back_from_a_flight_that_failed(world):
    world.store.may_answer.clear()
    world.store.error[0] = AWAY
    world.statuses.mark_active("0a")
    await turn()
    gone = asyncio.ensure_future(world.forget("0a"))
    await turn()
    world.store.may_answer.set()
    assert await gone is None
    del world.store.error[0]
    await asyncio.sleep(2 * LAST_PAUSE_S)
    assert world.store.users == {}


@pytest.mark.parametrize("error", [AWAY, StoreTimeoutError("late")])
def test_what_a_shard_that_is_away_did_not_take_goes_out_when_it_is_back(error):
    @in_a_loop
    async def test(world):
        world.store.error[0] = error
        for second in (1000, 1001, 1002):
            world.now = second
            world.statuses.update(["0a", "1b"])
            await turn()
        world.statuses.mark_online("0a")
        assert await world.ask("0a", "1b") is None
        assert await world.ask("1b") == [(1002, 0)]
        del world.store.error[0]
        await world.until(lambda: world.store.users.get("0a") == (1002, 1002))
        assert await world.ask("0a") == [(1002, 1002)]
        assert world.lost == 0
        assert world.errors > 0
        assert len([call for call in world.store.written() if call[0] == 0]) < 10, "it is not asked in a loop"

    test()


@in_a_loop
async def test_while_a_shard_is_left_alone_reads_fail_at_once(world):
    world.store.error[0] = AWAY
    assert await world.ask("0a") is None
    for _ in range(3):
        assert await world.ask("0a") is None
    assert len(world.store.calls) == 1
    await asyncio.sleep(FIRST_PAUSE_S)
    assert await world.ask("0a") is None
    assert len(world.store.calls) == 2, "and then it is asked again"


@in_a_loop
async def test_a_read_that_hangs_fails_within_the_timeout(world):
    world.store.may_answer.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await world.ask("0a", "1b") is None
    assert loop.time() - began == pytest.approx(TIMEOUT_S)


@in_a_loop(most_kept=5)
async def test_beyond_the_bound_updates_are_lost_and_counted(world):
    world.store.error[0] = AWAY
    world.statuses.update([f"0{n}" for n in range(5)])
    await turn()
    world.now = 1001
    world.statuses.update([f"0{n}" for n in range(2, 9)])
    assert world.lost == 4
    assert len(world.statuses._shards[0].kept) == 5
    world.statuses.update(["1a"])
    await turn()
    assert world.store.users == {"1a": (1001, 0)}, "the other shard has room of its own"


@in_a_loop(most_kept=5)
async def test_what_comes_back_from_a_flight_stays_within_the_bound(world):
    world.store.may_answer.clear()
    world.statuses.update([f"0{n}" for n in range(5)])
    await turn()
    world.statuses.update([f"0{n}" for n in range(5, 9)])
    world.store.error[0] = AWAY
    world.store.may_answer.set()
    await turn()
    assert len(world.statuses._shards[0].kept) == 5
    assert world.lost == 4


@in_a_loop
async def test_what_the_store_refuses_is_lost_alone(world):
    world.store.refused = {"0a"}
    world.statuses.update(["0a", "0b"])
    await turn()
    assert (world.lost, world.errors) == (1, 1)
    assert world.store.users == {"0b": (1000, 0)}
    assert await world.ask("0b") == [(1000, 0)], "the shard is not away for that"


@in_a_loop(most_kept=10_000)
async def test_what_is_kept_goes_out_in_parts_that_a_shard_can_answer_in_time(world):
    users = [f"0{n}" for n in range(2 * service.AT_ONCE + 10)]
    world.statuses.update(users)
    await world.until(lambda: len(world.store.users) == len(users))
    assert [len(updates) for _, updates in world.store.written()] == [service.AT_ONCE, service.AT_ONCE, 10]


@in_a_loop
async def test_a_clock_that_steps_back_moves_no_time_back(world):
    world.statuses.mark_active("0a")
    await turn()
    world.now = 400
    world.statuses.mark_active("0a")
    await turn()
    assert await world.ask("0a") == [(1000, 1000)]
    assert len(world.store.written()) == 2, "but the store hears of it: its key lives on"


def test_closing_writes_what_is_left_and_counts_what_cannot_be():
    async def main():
        world = World()
        world.statuses.update(["0a", "1b"])
        await world.statuses.close()
        assert world.store.users == {"0a": (1000, 0), "1b": (1000, 0)}
        away = World()
        away.store.error[0] = AWAY
        away.statuses.update(["0a", "1b"])
        await away.statuses.close()
        assert away.store.users == {"1b": (1000, 0)}
        assert away.lost == 1
        hanging = World()
        hanging.store.may_answer.clear()
        hanging.statuses.update(["0a"])
        answer = asyncio.ensure_future(hanging.ask("0a"))
        await turn()
        await hanging.statuses.close()
        assert await answer is None
        assert hanging.lost == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual.run(main())
