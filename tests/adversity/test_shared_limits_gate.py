"""A worker's gate while the store is late, away or broken: `local` admits one burst and forgives nothing."""

import asyncio

import msgspec

from cpro._fast.buckets import BucketTable
from cpro.clock import boot_ns
from cpro.config.load import load
from cpro.errors import StoreReplyError, StoreUnavailableError
from cpro.limits.rules import compile_rules
from cpro.limits.shared_gate import SharedGate
from cpro.operation import Operation, Verdict
from tests.adversity.test_shared_limits_leaser import TIMEOUT_S, Bench, run
from tests.support.service import limits

BURST = 3
OK, NO = Verdict.ADMITTED, Verdict.REFUSED


class Door:
    """A gate over the bench's leaser, asked as a door asks it."""

    def __init__(self, bench: Bench, path, **rate_limit) -> None:
        table = BucketTable.create_or_open(str(path / "buckets"), 1000, bytes(16), boot_ns(), str(path))
        self.gate = SharedGate(table, lambda code: None, bench.table, bench.leaser)
        blocks = limits("redis_user_command", publish=(BURST, "1h"))
        blocks["client"]["rate_limit"].update(rate_limit)
        (path / "cpro.json").write_bytes(msgspec.json.encode(blocks))
        settings = load(str(path / "cpro.json"), {}).settings
        limit = settings.client.rate_limit
        self.gate.configure(limit, compile_rules(limit, settings.channel, settings.rpc, has_store=True))

    async def ask(self, user: str = "42") -> Verdict:
        operation = Operation("publish", "client", user, channel="news")
        verdict = self.gate.charge(operation, boot_ns())
        if verdict is not None:
            return verdict
        told = asyncio.get_running_loop().create_future()
        self.gate.wait(operation, told.set_result)
        return await told

    async def ask_often(self, times: int, user: str = "42") -> list[Verdict]:
        return [await self.ask(user) for _ in range(times)]


def test_what_a_slow_store_left_to_the_node_counts_on_the_node_afterwards(tmp_path):
    async def scenario(bench: Bench) -> None:
        door = Door(bench, tmp_path, store_timeout=f"{TIMEOUT_S * 1000:.0f}ms")
        bench.store.may_answer.clear()
        assert await asyncio.gather(*(door.ask() for _ in range(BURST - 1))) == [OK] * (BURST - 1)
        bench.store.may_answer.set()
        await asyncio.sleep(0.02)
        assert await door.ask_often(3) == [OK, NO, NO], "the store would admit more, the node would not"
        assert await door.ask("other") == OK

    run(tmp_path, scenario)


def test_an_outage_admits_one_burst_which_is_not_forgiven_when_it_is_over(tmp_path):
    async def scenario(bench: Bench) -> None:
        door = Door(bench, tmp_path)
        bench.store.error = StoreUnavailableError("gone")
        assert await door.ask_often(BURST + 1) == [OK] * BURST + [NO]
        bench.store.error = None
        await asyncio.sleep(0.3)
        assert await door.ask("other") == OK, "it is back"
        assert not bench.leaser.is_away("42")
        assert await door.ask_often(2) == [NO, NO]

    run(tmp_path, scenario)


def test_nothing_is_kept_locally_before_the_store_has_ever_failed(tmp_path):
    async def scenario(bench: Bench) -> None:
        door = Door(bench, tmp_path)
        assert await door.ask_often(BURST + 2) == [OK] * (BURST + 2), "this store admits everything"

    run(tmp_path, scenario)


def test_a_key_the_store_refuses_is_decided_here_and_nobody_else_is(tmp_path):
    async def scenario(bench: Bench) -> None:
        door = Door(bench, tmp_path, on_store_error="deny")
        bench.store.error = StoreReplyError("WRONGTYPE")
        assert await door.ask("broken") == NO
        bench.store.error = None
        assert await door.ask_often(2, "well") == [OK, OK]

    run(tmp_path, scenario)
