"""The status table of a node: grows while processes write, survives kill -9, reboots and damaged files."""

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpro._fast.statusfile import StatusFile
from cpro.errors import StartError
from cpro.status import generations
from cpro.status.embedded import LocalStatuses
from cpro.status.generations import Generations
from cpro.status.keeper import Keeper
from tests.support.processes import eventually

BOOT, OTHER_BOOT = b"b" * 16, b"o" * 16


@pytest.fixture
def small(monkeypatch):
    """Tables that soon need room."""
    monkeypatch.setattr(generations, "FIRST_SLOTS", 210)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


class Worker:
    """A process of `statusfile_worker`."""

    def __init__(self, folder: Path, seed: int = 0, count: int = 0):
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "tests.unit.statusfile_worker", str(folder), str(seed), str(count)]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> "Worker":
        assert self.line() == "ready"
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def test_what_was_stored_is_there_after_a_restart(tmp_path):
    folder = tmp_path / "status"
    table = Generations.own(folder, BOOT)
    assert table.update("42", 5, 6, 0)
    table.close()
    assert Generations.own(folder, BOOT).get_many(["42", "43"], 0) == [(5, 6), (0, 0)]
    assert files(folder) == ["1.table"]
    assert os.stat(folder).st_mode & 0o777 == 0o700


def test_what_was_stored_is_there_after_a_reboot_in_a_new_file(tmp_path):
    table = Generations.own(tmp_path, BOOT)
    table.update("42", 5, 6, 0)
    table.close()
    again = Generations.own(tmp_path, OTHER_BOOT)
    assert again.get_many(["42"], 0) == [(5, 6)]
    assert files(tmp_path) == ["2.table"]
    assert again.newest.boot_id == OTHER_BOOT


def test_workers_see_what_others_store_at_once(tmp_path):
    owner = Generations.own(tmp_path, BOOT)
    one, two = Generations.attach(tmp_path), Generations.attach(tmp_path)
    one.update("42", 5, 6, 0)
    assert owner.get_many(["42"], 0) == two.get_many(["42"], 0) == [(5, 6)]


def test_a_table_that_runs_full_grows_and_loses_nobody(tmp_path, small):
    Generations.own(tmp_path, BOOT)
    one, two = Generations.attach(tmp_path), Generations.attach(tmp_path)
    users = [f"user-{n}" for n in range(2000)]
    for number, user in enumerate(users, start=1):
        assert (one if number % 2 else two).update(user, number, 0, 0)
    expected = [(number, 0) for number in range(1, 2001)]
    assert one.get_many(users, 0) == two.get_many(users, 0) == expected
    (name,) = files(tmp_path)
    assert name != "1.table"
    assert os.path.getsize(tmp_path / name) < 64 * len(users) + 4096 + 512


def test_a_million_users_are_known_in_less_than_64_bytes_each(tmp_path):
    table = Generations.own(tmp_path, BOOT)
    users = [f"user-{number}" for number in range(1_000_000)]
    for number, user in enumerate(users, start=1):
        table.update(user, number, 0, 0)
    assert table.get_many(users, 0) == [(number, 0) for number in range(1, 1_000_001)]
    (name,) = files(tmp_path)
    assert os.path.getsize(tmp_path / name) < 64 * len(users)


def test_growing_leaves_those_behind_who_have_expired(tmp_path, small):
    table = Generations.own(tmp_path, BOOT)
    for number in range(5000):
        assert table.update(f"user-{number}", number + 1, 0, max(0, number - 50))
    assert table.newest.slots == 210, "it never needed to be larger"


def test_a_worker_that_was_away_for_several_moves_finds_the_newest(tmp_path, small):
    Generations.own(tmp_path, BOOT)
    busy, sleepy = Generations.attach(tmp_path), Generations.attach(tmp_path)
    sleepy.update("42", 5, 0, 0)
    for number in range(3000):
        busy.update(f"user-{number}", 9, 0, 0)
    assert busy.newest.number > 3
    sleepy.update("42", 7, 0, 0)
    assert busy.get_many(["42"], 0) == sleepy.get_many(["42"], 0) == [(7, 0)]


def begin_move(folder: Path) -> tuple[Generations, Generations]:
    """A mover that gets as far as announcing the next generation."""
    mover, other = Generations.attach(folder), Generations.attach(folder)
    mover._begin_next(0, BOOT)
    return mover, other


def test_while_it_moves_updates_reads_and_deletions_see_both_files(tmp_path):
    owner = Generations.own(tmp_path, BOOT)
    for user in ("old", "both", "gone"):
        owner.update(user, 5, 5, 0)
    mover, other = begin_move(tmp_path)
    other.update("both", 9, 0, 0)
    other.update("new", 3, 0, 0)
    other.forget(["gone"])
    users = ["old", "both", "new", "gone"]
    expected = [(5, 5), (9, 5), (3, 0), (0, 0)]
    assert other.get_many(users, 0) == mover.get_many(users, 0) == expected
    late = Generations.attach(tmp_path)
    assert late.get_many(users, 0) == expected
    mover.make_room(0)
    assert other.get_many(users, 0) == late.get_many(users, 0) == mover.get_many(users, 0) == expected
    assert files(tmp_path) == ["2.table"]


class Interrupted:
    """A file that a mover copies just before somebody is forgotten in it."""

    def __init__(self, file: StatusFile, mover: Generations) -> None:
        self._file = file
        self._mover = mover

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def forget(self, user: str) -> None:
        if not self._file.following:
            self._file.move_into(self._mover._begin_next(0, BOOT), 0)
        self._file.forget(user)


def test_who_is_forgotten_while_a_move_begins_does_not_come_back(tmp_path):
    Generations.own(tmp_path, BOOT).update("42", 5, 5, 0)
    mover, other = Generations.attach(tmp_path), Generations.attach(tmp_path)
    other._files[0] = Interrupted(other._files[0], mover)
    other.forget(["42"])
    mover.make_room(0)
    assert mover.get_many(["42"], 0) == [(0, 0)]


def test_a_move_whose_mover_died_is_finished_by_the_next(tmp_path):
    Generations.own(tmp_path, BOOT).update("42", 5, 5, 0)
    _, other = begin_move(tmp_path)
    assert other.needs_work
    other.make_room(0)
    assert not other.needs_work
    assert files(tmp_path) == ["2.table"]
    assert other.get_many(["42"], 0) == [(5, 5)]


def test_a_move_that_a_restart_cut_off_is_finished_by_the_owner(tmp_path):
    owner = Generations.own(tmp_path, BOOT)
    owner.update("42", 5, 5, 0)
    begin_move(tmp_path)[1].update("43", 6, 6, 0)
    again = Generations.own(tmp_path, BOOT)
    assert again.get_many(["42", "43"], 0) == [(5, 5), (6, 6)]
    assert files(tmp_path) == ["2.table"]


def test_a_file_that_was_made_but_never_announced_does_no_harm(tmp_path):
    owner = Generations.own(tmp_path, BOOT)
    owner.update("42", 5, 5, 0)
    StatusFile.create(str(tmp_path / "2.table"), 2, 210, owner.newest.hash_key, BOOT).close()
    worker = Generations.attach(tmp_path)
    worker.update("43", 6, 6, 0)
    worker._begin_next(0, BOOT)
    worker.make_room(0)
    assert owner.get_many(["42", "43"], 0) == [(5, 5), (6, 6)]


@pytest.mark.parametrize("damage", ["foreign", "cut", "folder", "link"])
def test_a_file_that_cant_be_read_is_set_aside_with_a_word_and_the_start_goes_on(tmp_path, damage, caplog):
    path = tmp_path / "1.table"
    Generations.own(tmp_path, BOOT).close()
    if damage == "foreign":
        path.write_bytes(b"once upon a time" * 1000)
    elif damage == "cut":
        os.truncate(path, 5000)
    else:
        path.unlink()
        path.mkdir() if damage == "folder" else path.symlink_to("/etc/passwd")
    table = Generations.own(tmp_path, BOOT)
    assert table.update("42", 5, 5, 0)
    assert [record.message for record in caplog.records] == ["status table can't be read: set aside"]
    assert "1.table.aside" in files(tmp_path)


def test_of_two_files_the_one_that_can_be_read_is_used(tmp_path):
    owner = Generations.own(tmp_path, BOOT)
    owner.update("42", 5, 5, 0)
    (tmp_path / "2.table").write_bytes(b"x" * 10_000)
    assert Generations.own(tmp_path, BOOT).get_many(["42"], 0) == [(5, 5)]
    assert files(tmp_path) == ["1.table", "2.table.aside"]


def test_a_table_of_another_node_beside_the_own_is_set_aside(tmp_path):
    StatusFile.create(str(tmp_path / "1.table"), 1, 210, b"another nodes k!", BOOT).update("42", 9, 9, 0)
    StatusFile.create(str(tmp_path / "2.table"), 2, 210, b"this nodes key.!", BOOT).update("42", 5, 5, 0)
    assert Generations.own(tmp_path, BOOT).get_many(["42"], 0) == [(5, 5)]
    assert files(tmp_path) == ["1.table.aside", "2.table"]


def test_without_room_on_the_disk_updates_fail_and_what_is_there_stays(tmp_path, small, monkeypatch):
    owner = Generations.own(tmp_path, BOOT)

    attempts = []

    def no_room(*arguments):
        attempts.append(arguments)
        raise StartError("no room")

    monkeypatch.setattr(generations, "StatusFile", type("Full", (), {"create": no_room, "open": StatusFile.open}))
    lost = []
    statuses = LocalStatuses(owner, 3600, lost.append, clock=lambda: 10_000)
    statuses.update([f"user-{n}" for n in range(300)])
    assert len(lost) == 300 - owner.newest.used > 0
    assert len(attempts) == 1, "the disk is left alone for a while"
    assert statuses.ask(["user-0"], None) == [(10_000, 0)]
    monkeypatch.undo()
    monkeypatch.setattr(generations, "FIRST_SLOTS", 210)
    owner._try_again_ns = 0
    statuses.update([f"user-{n}" for n in range(300)])
    assert len(statuses.ask([f"user-{n}" for n in range(300)], None)) == 300
    assert owner.newest.used == 300


def test_the_keeper_gives_room_in_time_and_syncs_at_its_end(tmp_path, small):
    keeper = Keeper(Generations.own(tmp_path, BOOT), lambda: 0)
    try:
        worker = Generations.attach(tmp_path)
        for number in range(170):
            worker.update(f"user-{number}", 5, 5, 0)
        assert eventually(lambda: files(tmp_path) == ["2.table"])
        assert worker.get_many(["user-0", "user-169"], 0) == [(5, 5)] * 2
    finally:
        keeper.close()
    assert "status" not in {thread.name for thread in threading.enumerate()}


def test_processes_that_write_while_the_table_moves_end_with_the_latest_of_all(tmp_path, small):
    folder = tmp_path / "status"
    owner = Generations.own(folder, BOOT)
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(folder, seed, 40_000)) for seed in (1, 2, 3)]
        for worker in workers:
            worker.go()
        while any(worker.process.poll() is None for worker in workers):
            owner.make_room(0)
        assert [worker.process.returncode for worker in workers] == [0, 0, 0]
    said = [json.loads((tmp_path / f"{seed}.json").read_text()) for seed in (1, 2, 3)]
    latest: dict[str, tuple[int, int]] = {}
    for one in said:
        for user, (active, online) in one.items():
            known = latest.get(user, (0, 0))
            latest[user] = max(known[0], active), max(known[1], online)
    assert owner.get_many(list(latest), 0) == list(latest.values())
    assert owner.newest.number > 3
    assert len(files(folder)) == 1


USERS = [f"user-{number}" for number in range(40)]
STEPS = st.one_of(
    st.tuples(st.just("update"), st.integers(0, 1), st.sampled_from(USERS), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.just("forget"), st.integers(0, 1), st.sampled_from(USERS)),
    st.tuples(st.just("begin"), st.integers(0, 1)),
    st.tuples(st.just("make_room"), st.integers(0, 1)),
    st.tuples(st.just("restart"), st.integers(0, 1)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=60))
def test_two_workers_in_whatever_order_end_as_a_dictionary_would(tmp_path_factory, small, steps):
    """Each with a mapping of its own, moves begun, cut off and finished among their updates."""
    folder = tmp_path_factory.mktemp("status")
    Generations.own(folder, BOOT)
    workers = [Generations.attach(folder), Generations.attach(folder)]
    model: dict[str, tuple[int, int]] = {}
    for step in steps:
        worker = workers[step[1]]
        match step:
            case ("update", _, user, active, online):
                assert worker.update(user, active, online, 0)
                known = model.get(user, (0, 0))
                model[user] = max(known[0], active), max(known[1], online)
            case ("forget", _, user):
                worker.forget([user])
                model.pop(user, None)
            case ("begin", _):
                worker.follow()
                worker._begin_next(0, BOOT)
            case ("make_room", _):
                worker.make_room(0)
            case ("restart", number):
                workers[number] = Generations.attach(folder)
    expected = [model.get(user, (0, 0)) for user in USERS]
    assert [worker.get_many(USERS, 0) for worker in workers] == [expected, expected]
    assert Generations.own(folder, BOOT).get_many(USERS, 0) == expected
    assert len(files(folder)) == 1


def test_kill_9_in_the_middle_of_updates_loses_nothing_that_was_stored(tmp_path):
    owner = Generations.own(tmp_path, BOOT)
    owner.update("even", 0, 0, 0)
    for _ in range(5):
        with Worker(tmp_path) as worker:
            worker.go()
            told = [worker.line() for _ in range(200)]
            worker.process.kill()
            rest = worker.process.stdout.read().split("\n")
            last = int(([*told, *rest[:-1]])[-1])
        (even, odd) = owner.get_many(["even", "odd"], 0)
        assert even >= (last, last + 1)
        assert odd >= (last, last + 1)
        assert odd[1] == odd[0] + 1, "both times of a user are stored at once"
        owner.forget(["even", "odd"])
        assert owner.update("even", 1, 1, 0)


def test_expiry_is_by_the_clock_of_now(tmp_path):
    now = [10_000]
    statuses = LocalStatuses(Generations.own(tmp_path, BOOT), 100, lambda lost: None, clock=lambda: now[0])
    statuses.mark_active("42")
    now[0] += 100
    assert statuses.ask(["42"], None) == [(10_000, 10_000)]
    now[0] += 1
    assert statuses.ask(["42"], None) == [(0, 0)]
    statuses.mark_online("42")
    assert statuses.ask(["42"], None) == [(0, 10_101)]


def test_a_clock_that_steps_back_moves_no_time(tmp_path):
    now = [10_000]
    statuses = LocalStatuses(Generations.own(tmp_path, BOOT), 100_000, lambda lost: None, clock=lambda: now[0])
    statuses.mark_active("42")
    now[0] = 6000
    statuses.mark_active("42")
    statuses.update(["42", "43"])
    assert statuses.ask(["42", "43"], None) == [(10_000, 10_000), (6000, 0)]
    now[0] = 10_001
    statuses.mark_active("42")
    assert statuses.ask(["42"], None) == [(10_001, 10_001)]
