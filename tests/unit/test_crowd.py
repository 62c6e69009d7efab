"""Connections of a node's workers, counted together: never above a limit, and right again after a worker is killed."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.crowd import REFUSED, UNCOUNTED, CrowdFile
from cpro.errors import StartError, StoreError

ADDRESSES = [b"", b"a", b"b", bytes(4), bytes(8)]
STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ADDRESSES), st.booleans(), st.integers(0, 99)))


class Memory:
    """A crowd file in memory, as the supervisor makes it."""

    def __init__(self, blocks: int, addresses: int) -> None:
        self._fd = os.memfd_create("crowd")
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.file = CrowdFile.create(self.path, blocks, addresses)

    def close(self) -> None:
        self.file.close()
        os.close(self._fd)


@pytest.fixture
def memory():
    made: list[Memory] = []

    def make(blocks: int = 3, addresses: int = 100) -> Memory:
        made.append(Memory(blocks, addresses))
        return made[-1]

    yield make
    for one in made:
        one.close()


@given(STEPS, st.integers(0, 4), st.integers(0, 3))
def test_it_counts_as_a_dictionary_would(steps: list, most: int, most_per_address: int):
    memory = Memory(3, 100)
    crowds = [CrowdFile.attach(memory.path).block(number) for number in range(3)]
    inside: list[tuple[int, bytes, int]] = []
    for worker, address, leaves, which in steps:
        counts = Counter(one for _, one, _ in inside)
        if leaves and inside:
            owner, _, place = inside.pop(which % len(inside))
            crowds[owner].leave(place)
        else:
            is_full = (most and len(inside) >= most) or (
                address and most_per_address and counts[address] >= most_per_address
            )
            place = crowds[worker].enter(address, most, most_per_address)
            assert (place == REFUSED) == bool(is_full)
            assert (place == UNCOUNTED) == (not address and not is_full)
            if place != REFUSED:
                inside.append((worker, address, place))
        counts = Counter(one for _, one, _ in inside)
        assert [crowds[worker].count(one) for one in ADDRESSES[1:]] == [counts[one] for one in ADDRESSES[1:]]
        assert crowds[worker].count() == len(inside)
    memory.close()


def test_a_cleared_block_counts_nobody_and_leaves_the_others_alone(memory: Callable[..., Memory]):
    file = memory().file
    for number in range(3):
        assert file.block(number).enter(b"a", 0, 0) > 0
    file.clear(1)
    assert (file.block(0).count(b"a"), file.block(0).count()) == (2, 2)
    assert file.block(1).enter(b"a", 3, 3) > 0
    assert file.block(1).enter(b"a", 3, 0) == REFUSED
    assert file.block(2).enter(b"a", 0, 3) == REFUSED


def test_a_worker_has_room_for_as_many_addresses_as_it_was_made_for(memory: Callable[..., Memory]):
    crowd = memory(2, 20_000).file.block(1)
    places = [crowd.enter(b"%d" % number, 0, 1) for number in range(20_000)]
    assert min(places) > 0
    assert all(crowd.count(b"%d" % number) == 1 for number in range(20_000))
    for place in places:
        crowd.leave(place)
    assert crowd.count() == 0
    assert not any(crowd.count(b"%d" % number) for number in range(20_000))


def test_more_addresses_than_there_is_room_for_are_turned_away_only_where_there_is_a_limit_for_each(
    memory: Callable[..., Memory],
):
    crowd = memory(1, 4).file.block(0)
    places = [crowd.enter(b"%d" % number, 0, 2) for number in range(100)]
    inside = [place for place in places if place != REFUSED]
    assert 4 <= len(inside) < 100
    assert crowd.count() == len(inside), "who is turned away is not counted"
    turned_away = b"%d" % places.index(REFUSED)
    place = crowd.enter(turned_away, 0, 0)
    assert place == UNCOUNTED
    assert crowd.count() == len(inside) + 1
    crowd.leave(place)
    assert crowd.count() == len(inside)
    first = b"%d" % places.index(inside[0])
    assert crowd.enter(first, 0, 2) == inside[0], "who is known is still counted"


def test_nobody_leaves_who_is_not_there(memory: Callable[..., Memory]):
    crowd = memory().file.block(0)
    place = crowd.enter(b"a", 0, 0)
    crowd.leave(place)
    with pytest.raises(ValueError, match="nobody"):
        crowd.leave(place)
    for wrong in (1, -5, 10**9):
        with pytest.raises(IndexError):
            crowd.leave(wrong)
    assert crowd.count() == 0


@pytest.mark.parametrize("index", [3, -1])
def test_a_block_out_of_range_is_an_error(memory: Callable[..., Memory], index: int):
    file = memory().file
    for wrong in (file.block, file.clear):
        with pytest.raises(IndexError):
            wrong(index)


def test_a_closed_file_says_so(memory: Callable[..., Memory]):
    file = memory().file
    crowd = file.block(0)
    file.close()
    for wrong in (lambda: file.block(0), lambda: crowd.enter(b"a", 0, 0), lambda: crowd.leave(0), crowd.count):
        with pytest.raises(StoreError):
            wrong()


def test_anything_else_is_no_crowd_file(tmp_path):
    for content in (b"", bytes(64), bytes(4096)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(StartError, match="not a crowd file"):
            CrowdFile.attach(str(tmp_path / "x"))
    with pytest.raises(StartError, match="can't open"):
        CrowdFile.attach(str(tmp_path / "none"))


# -- several processes


def start(work: str, memory: Memory, index: int, *numbers: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.unit.crowd_worker", work, memory.path, str(index), *map(str, numbers)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def test_connections_of_a_killed_worker_come_back(memory: Callable[..., Memory]):
    made = memory()
    worker = start("hold", made, 1, 10)
    own = made.file.block(0)
    assert own.enter(b"a", 0, 5) == REFUSED
    worker.kill()
    worker.communicate()
    assert own.enter(b"a", 0, 5) == REFUSED, "until its end is known"
    made.file.clear(1)
    assert own.count() == 0
    assert [own.enter(b"a", 0, 5) != REFUSED for _ in range(6)] == [True] * 5 + [False]


def test_workers_that_come_and_go_at_the_limit_never_exceed_it(memory: Callable[..., Memory]):
    made = memory(4)
    watching = made.file.block(3)
    workers = [start("push", made, index, 4, 20_000) for index in range(3)]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    changes = [json.loads(worker.stdout.readline()) for worker in workers]
    assert sum(len(one) for one in changes) > 100, "one of them may have found no place while it ran"
    inside = most = 0
    for _, change in sorted((at_ns, change) for one in changes for at_ns, change in one):
        inside += change
        most = max(most, inside)
    assert most <= 4
    assert watching.count(b"a") == watching.count() == inside == 0
    for worker in workers:
        worker.communicate("end\n", timeout=30)
