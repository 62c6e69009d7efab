"""Several processes on one lease table: never more is spent than was granted, whoever is killed when."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cpro._fast.leasetable import LeaseTable
from cpro.limits.leases import Answer, Balance, Limit, Policy, build_ask, take_answer
from tests.unit.leasetable_worker import BOTH, PLAN, boot_ns

WORKER = [sys.executable, "-m", "tests.unit.leasetable_worker"]
SECOND = 10**9


@pytest.fixture
def table(tmp_path: Path):
    made = LeaseTable.create_or_open(str(tmp_path / "t"), 100_000, bytes(16), boot_ns())
    yield made
    made.close()


def start(what: str, table: LeaseTable, *numbers: int) -> subprocess.Popen:
    return subprocess.Popen([*WORKER, what, table.path, *map(str, numbers)], stdout=subprocess.PIPE)


def result(worker: subprocess.Popen) -> int:
    return json.loads(worker.communicate(timeout=30)[0])


def fill(table: LeaseTable, place: int, tokens: int) -> None:
    """As an answer of the store does, again and again while others spend."""
    with table.claim(BOTH, place, "u", 0, os.getpid(), boot_ns()) as record:
        record.sequence += 1
        record.granted += tokens
        record.tokens += tokens
        record.deadline_ns = boot_ns() + 60 * SECOND


def left(table: LeaseTable, place: int) -> int:
    return table.peek_tag(table.tag_of(BOTH, place, "u", 0)).tokens


def test_together_they_spend_what_was_granted_and_not_more(table: LeaseTable):
    for place in (0, 1):
        fill(table, place, 100)
    workers = [start("spend_all", table, boot_ns() + 2 * SECOND) for _ in range(3)]
    granted = 100
    while workers[0].poll() is None:
        for place in (0, 1):
            fill(table, place, 1000)
        granted += 1000
        time.sleep(0.002)
    had = sum(result(worker) for worker in workers)
    assert left(table, 0) == left(table, 1) == granted - had
    assert had > 10_000


def test_reports_while_others_spend_and_undo_never_claim_less_than_was_spent(table: LeaseTable):
    limit, policy, choice = Limit(1, 1000, 10**9), Policy(), random.Random(1)
    until_ns = boot_ns() + 2 * SECOND
    workers = [start(what, table, until_ns) for what in ("spend_all", "spend_all", "undo")]
    fill(table, 1, 10**9)
    granted = spent = asked = returned = 0
    while any(worker.poll() is None for worker in workers):
        with table.claim(BOTH, 0, "u", 0, os.getpid(), boot_ns()) as record:
            ask = build_ask(record, limit, bytes(16), boot_ns(), policy, choice.choice([0, 0, 0, 2]))
            assert ask.spent + ask.returned + ask.held <= granted
            assert ask.aged <= ask.spent
            assert ask.spent >= spent, "what was reported was undone"
            spent, asked, returned = ask.spent, asked + 1, ask.returned
            time.sleep(choice.choice([0, 0.0005]))
            granted += min(ask.extra, 500) + choice.randrange(50)
            answer = Answer(False, 0, 0, (Balance(granted, 0, 10**6, ask.sequence - 1),))
            assert take_answer(record, ask, answer, 0, boot_ns(), policy)
        time.sleep(choice.choice([0, 0.0005]))
    had = sum(result(worker) for worker in workers)
    peek = table.peek_tag(table.tag_of(BOTH, 0, "u", 0))
    assert had <= peek.spent == granted - returned - left(table, 0)
    assert min(had, asked, returned) > 100


def test_undoing_creates_nothing(table: LeaseTable):
    for place in (0, 1):
        fill(table, place, 3)
    until_ns = boot_ns() + int(1.5 * SECOND)
    undoing = [start("undo", table, until_ns) for _ in range(2)]
    spending = start("spend_all", table, until_ns)
    granted = 3
    while undoing[0].poll() is None:
        for place in (0, 1):
            fill(table, place, 1)
        granted += 1
        time.sleep(0.001)
    had = result(spending)
    for worker in undoing:
        result(worker)
    for place in (0, 1):
        assert had + left(table, place) <= granted


def test_killed_workers_spent_at_least_what_they_used(table: LeaseTable):
    fill(table, 0, 10**9)
    workers = [start("spend_loudly", table) for _ in range(3)]
    time.sleep(0.8)
    used = 0
    for worker in workers:
        worker.kill()
        used += len(worker.communicate()[0])
    gone = 10**9 - left(table, 0)
    assert used <= gone <= used + len(workers)
    assert used > 0


def test_racing_claims_give_one_owner_each(table: LeaseTable):
    workers = [start("claim_keys", table, boot_ns() + SECOND, 40_000) for _ in range(3)]
    won = [result(worker) for worker in workers]
    assert sum(won) == 40_000
    assert sum(map(bool, won)) > 1, "they did not race"
    for key in range(0, 40_000, 197):
        assert table.claim(PLAN, 0, str(key), 0, os.getpid(), boot_ns()), "its owner ended"


def test_workers_killed_while_they_make_records_leave_a_sound_table(tmp_path: Path):
    table = LeaseTable.create_or_open(str(tmp_path / "small"), 2000, bytes(16), boot_ns())
    for _ in range(3):
        workers = [start("churn", table) for _ in range(2)]
        time.sleep(0.3 + random.random() / 10)
        for worker in workers:
            worker.kill()
            worker.wait()
            worker.stdout.close()
    late_ns = boot_ns() + 60 * SECOND
    made = [table.claim(PLAN, 0, str(user), 0, os.getpid(), late_ns) for user in range(1500)]
    assert sum(map(bool, made)) > 1490
    assert all(record.tokens == record.granted == 0 for record in made if record)
    table.close()
