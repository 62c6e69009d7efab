"""The analyst killed at every step of its way: the next one does what makes every row be there once.

A step is a write to the sink, or a change of a name on the disk; the process ends before it, or when it is done.
"""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from cpro.analytics.sinks import Flush, Folders, Runner
from cpro.errors import SinkRejectError, SinkSplitError
from cpro.sinktesting import RowFolder
from tests.support.sinks import RecordingSink, Tally

TOO_MANY = 6
"""Rows in a batch that the sink asks to have in halves."""
NEVER = "13"
"""A user whose row no sink takes."""


class KilledError(BaseException):
    """`kill -9`: nobody catches it."""


class Steps:
    """Lets so many pass, and ends the process at the next."""

    def __init__(self, left: int) -> None:
        self.left = left

    def step(self) -> None:
        if self.left == 0:
            raise KilledError
        self.left -= 1

    def around(self, act: Callable) -> Callable:
        def one(*arguments, **keywords):
            self.step()
            result = act(*arguments, **keywords)
            self.step()
            return result

        return one


class Picky(RecordingSink):
    """Takes few rows at a time, and one never."""

    def write(self, batch) -> None:
        if batch.rows > TOO_MANY:
            raise SinkSplitError("too many")
        if NEVER in batch.columns["user"]:
            raise SinkRejectError("never")
        super().write(batch)


def run(folder: Path, sink: RecordingSink) -> None:
    """One life of a runner, in this thread, until there is nothing to send."""
    folders = Folders(folder / "journal", folder / "rejected")
    runner = Runner("clickhouse", sink, folders, Flush(0.02, 10), Tally(), blocks=True)
    runner.stop()  # when nothing is left
    runner._load()
    runner._work()
    runner._end()


def record(folder: Path, first: int = 0, last: int = 25) -> None:
    """Two tables in several segments; at first two batches and a half."""
    rows = RowFolder(folder / "journal")
    for number in range(first, last):
        rows.append("operations" if number % 3 else "subscriptions", user=str(number), time=number)
        if number == 12:
            rows.next_segment()
    rows.close()


def died(folder: Path, sink: RecordingSink, steps: Steps) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink, "write", steps.around(sink.write))
        for name in ("replace", "unlink"):
            patch.setattr(os, name, steps.around(getattr(os, name)))
        try:
            run(folder, sink)
        except KilledError:
            return True
    return False


def set_aside(folder: Path) -> int:
    """Batches that lie in files."""
    return len(list((folder / "rejected" / "clickhouse").glob("*.native")))


def test_whenever_it_is_killed_the_next_one_stores_every_row_once(tmp_path):
    whole = tmp_path / "whole"
    record(whole)
    untroubled = Picky()
    run(whole, untroubled)
    record(whole, 25, 32)
    run(whole, untroubled)
    expected = untroubled.users()
    assert len(expected) > 25
    assert set(expected.values()) == {1}
    assert set_aside(whole) == 1
    for left in count():
        folder = tmp_path / str(left)
        record(folder)
        sink = Picky()
        if not died(folder, sink, Steps(left)):
            break
        record(folder, 25, 32)  # what has come since is no part of what was being sent
        run(folder, sink)
        assert sink.users() == expected, f"killed at step {left}"
        assert set_aside(folder) == 1
    assert left > 20


def test_killed_again_and_again_it_comes_to_an_end(tmp_path):
    record(tmp_path)
    sink, lives = Picky(), 0
    while died(tmp_path, sink, Steps(12)):
        lives += 1
        assert lives < 200
    assert lives > 1
    assert set(sink.users().values()) == {1}
    assert NEVER not in sink.users()
