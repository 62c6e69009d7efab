"""A worker's gate while the store is late, away or broken: `local` admits one burst and forgives nothing."""

import asyncio
import os

import msgspec
import pytest

from cpro._fast.buckets import BucketTable
from cpro.clock import boot_ns
from cpro.config.load import load
from cpro.errors import StoreReplyError, StoreUnavailableError
from cpro.limits.gate import USER
from cpro.limits.rules import compile_rules
from cpro.limits.shared_gate import SharedGate
from cpro.operation import Operation, Verdict
from tests.adversity.test_shared_limits_leaser import PATIENT_S, SHORT_S, Bench, run, until
from tests.support.service import limits

BURST = 3
OK, NO = Verdict.ADMITTED, Verdict.REFUSED


class Door:
    """A gate over the bench's leaser, asked as a door asks it."""

    def __init__(self, bench: Bench, path, **rate_limit) -> None:
        table = BucketTable.create_or_open(str(path / "buckets"), 1000, bytes(16), boot_ns(), str(path))
        self.codes: list[int] = []
        self.gate = SharedGate(table, self.codes.append, bench.table, bench.leaser)
        self.bench = bench
        blocks = limits("redis_user_command", publish=(BURST, "1h"), unsubscribe=(1, "1h"))
        blocks["client"]["rate_limit"].update({"store_timeout": f"{PATIENT_S:.0f}s", **rate_limit})
        (path / "cpro.json").write_bytes(msgspec.json.encode(blocks))
        settings = load(str(path / "cpro.json"), {}).settings
        limit = settings.client.rate_limit
        self.rules = compile_rules(limit, settings.channel, settings.rpc, has_store=True)
        self.gate.configure(limit, self.rules)

    async def ask(self, user: str = "42", kind: str = "publish", **how: bool) -> Verdict:
        operation = Operation(kind, "client", user, channel="news")
        verdict = self.gate.charge(operation, boot_ns(), **how)
        if verdict is not None:
            return verdict
        told = asyncio.get_running_loop().create_future()
        self.gate.wait(operation, told.set_result, **how)
        return await told

    def lease(self, kind: str, tokens: int, user: str = "42") -> None:
        """Put tokens in hand; none: the bucket is known to be empty."""
        leased = self.rules.leased[self.rules.plan(kind, "news", "")]
        self.bench.lease(leased, tokens, user)
        if not tokens:
            for place in range(len(leased.limits)):
                with self.bench.table.claim(leased.plan, place, user, USER, os.getpid(), boot_ns()) as record:
                    record.next_ask_ns = boot_ns() + 10**9

    async def ask_often(self, times: int, user: str = "42") -> list[Verdict]:
        return [await self.ask(user) for _ in range(times)]


def test_what_a_slow_store_left_to_the_node_counts_on_the_node_afterwards(tmp_path):
    async def scenario(bench: Bench) -> None:
        door = Door(bench, tmp_path, store_timeout=f"{SHORT_S * 1000:.0f}ms")
        bench.store.may_answer.clear()
        assert await asyncio.gather(*(door.ask() for _ in range(BURST - 1))) == [OK] * (BURST - 1)
        bench.store.may_answer.set()
        await until(lambda: (USER, "42") not in bench.leaser._users)  # its request has ended
        assert await door.ask_often(3) == [OK, NO, NO], "the store would admit more, the node would not"
        assert await door.ask("other") == OK

    run(tmp_path, scenario)


def test_an_outage_admits_one_burst_which_is_not_forgiven_when_it_is_over(tmp_path):
    async def scenario(bench: Bench) -> None:
        door = Door(bench, tmp_path)
        bench.store.error = StoreUnavailableError("gone")
        assert await door.ask_often(BURST + 1) == [OK] * BURST + [NO]
        bench.store.error = None
        await until(lambda: not bench.leaser.is_away("42", USER))
        assert await door.ask("other") == OK, "it is back"
        assert not bench.leaser.is_away("42", USER)
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


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("is_troubled", [False, True])
def test_the_short_way_and_the_long_one_decide_and_count_alike(tmp_path, is_troubled, dry_run):
    refused, code = (Verdict.DRY_RUN, 3 << 4) if dry_run else (NO, 2 << 4)

    async def scenario(bench: Bench) -> None:
        door = Door(bench, tmp_path, on_store_error="deny", exempt_users=["root"], dry_run=dry_run)
        bench.store.may_answer.clear()
        bench.leaser.is_troubled = is_troubled
        door.lease("publish", 2)
        door.lease("publish", 0, "poor")
        door.lease("unsubscribe", 0, "poor")
        assert [await door.ask(), await door.ask(), await door.ask("poor")] == [OK, OK, refused]
        assert await door.ask("poor", "unsubscribe") == (refused if dry_run else OK), "it is never refused"
        assert await door.ask("poor", own_only=True) == refused, "it is set explicitly"
        assert [await door.ask("root"), await door.ask(""), await door.ask("poor", "rpc")] == [OK] * 3
        assert door.codes == [1 << 4, 1 << 4, code, code, code, 0, 0]
        assert not bench.store.requests

    run(tmp_path, scenario)


def test_a_token_in_hand_that_is_nearly_the_last_has_more_asked_for(tmp_path):
    async def scenario(bench: Bench) -> None:
        door = Door(bench, tmp_path)
        door.lease("publish", 1)
        leased = door.rules.leased[door.rules.plan("publish", "news", "")]
        with bench.table.claim(leased.plan, 0, "42", USER, os.getpid(), boot_ns()) as record:
            record.demand_mtps = 10**6
        assert await door.ask() == OK
        await until(lambda: bench.store.requests)
        assert [request.need for request in bench.store.requests] == [0]

    run(tmp_path, scenario)


@pytest.mark.parametrize("is_troubled", [False, True])
def test_what_the_node_refuses_costs_no_token_in_hand(tmp_path, is_troubled):
    async def scenario(bench: Bench) -> None:
        own = limits("client_command", publish=(1, "1h"))["client"]["rate_limit"]
        door = Door(bench, tmp_path, on_store_error="deny", **own)
        door.lease("publish", 3)
        bench.leaser.is_troubled = is_troubled
        leased = door.rules.leased[door.rules.plan("publish", "news", "")]
        assert await door.ask_often(3) == [OK, NO, NO]
        assert bench.tokens(leased) == [2]
        assert door.codes == [1 | 1 << 4, 2, 2]

    run(tmp_path, scenario)


@pytest.mark.parametrize("is_troubled", [False, True])
def test_a_token_in_hand_beside_a_bucket_of_the_node_in_dry_run_is_spent_and_recorded(tmp_path, is_troubled):
    async def scenario(bench: Bench) -> None:
        own = limits("client_command", publish=(1, "1h"))["client"]["rate_limit"]
        own["client_command"]["dry_run"] = True
        door = Door(bench, tmp_path, on_store_error="deny", **own)
        door.lease("publish", 3)
        bench.leaser.is_troubled = is_troubled
        leased = door.rules.leased[door.rules.plan("publish", "news", "")]
        assert await door.ask_often(2) == [OK, Verdict.DRY_RUN]
        assert bench.tokens(leased) == [1]
        assert door.codes == [1 | 1 << 4, 3 | 1 << 4]

    run(tmp_path, scenario)
