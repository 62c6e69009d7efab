"""All sinks together: what is deleted when, who may lose rows, and who waits for whom."""

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from cpro._fast.journal import SegmentReader
from cpro.analytics import backlog
from cpro.analytics import shipper as under_test
from cpro.analytics.shipper import status_from_disk
from cpro.analytics.sinks import Folders
from cpro.errors import SinkError
from cpro.sinktesting import RowFolder
from tests.support.sinks import Hang, RecordingSink, segments, shipping, soon

SEGMENT = 64 << 10
LIMIT = 1 << 20


@pytest.fixture
def rows(tmp_path: Path):
    folder = RowFolder(tmp_path / "journal", segment_bytes=SEGMENT)
    yield folder
    folder.close()


def record(rows: RowFolder, first: int, last: int) -> None:
    for number in range(first, last):
        rows.append("operations", user=str(number), channel="x" * 100, time=1_700_000_000)


def record_segments(rows: RowFolder, count: int, first: int = 0) -> int:
    """Fill so many segments, and begin another; the number of rows so far."""
    until, number = rows.number + count, first
    while rows.number < until:
        record(rows, number, number + 1)
        number += 1
    return number


def test_segments_are_deleted_when_every_sink_has_passed_them(rows, tmp_path):
    hang = Hang()
    fast, slow = RecordingSink(), RecordingSink(hang)
    last = record_segments(rows, 4)
    with shipping(tmp_path, sinks={"clickhouse": fast, "slow": slow}):
        assert hang.reached.wait(10)
        assert soon(lambda: len(fast.users()) == last)
        time.sleep(0.6)
        assert len(segments(tmp_path)) == 5
        hang.let_go.set()
        assert soon(lambda: segments(tmp_path) == [f"journal/0/{5:020}.seg"])
        assert slow.users() == fast.users() == {str(n): 1 for n in range(last)}


def test_segments_of_workers_that_are_gone_are_sent_and_deleted(rows, tmp_path):
    for worker in (1, 2):
        folder = RowFolder(tmp_path / "journal", worker)
        folder.append("operations", user=f"of {worker}")
        folder.close()
    sink = RecordingSink()
    with shipping(tmp_path, sinks={"clickhouse": sink}):
        assert soon(lambda: sink.users() == {"of 1": 1, "of 2": 1})
        assert soon(lambda: len(segments(tmp_path)) == 1)


def test_a_full_journal_costs_a_lagging_plugin_its_oldest_rows_and_nobody_else(rows, tmp_path):
    hang = Hang()
    clickhouse, good, hanging = RecordingSink(), RecordingSink(), RecordingSink(hang)
    sinks = {"clickhouse": clickhouse, "good": good, "hanging": hanging}
    with shipping(tmp_path, sinks=sinks, most_bytes=LIMIT, rows=100) as one:
        last = record_segments(rows, 2)
        assert hang.reached.wait(10)
        for _ in range(15):  # no faster than those who don't hang take it
            last = record_segments(rows, 2, last)
            assert soon(lambda last=last: len(clickhouse.users()) == len(good.users()) == last)
        assert soon(lambda: size(tmp_path) <= LIMIT)
        tally = one.tallies["hanging"]
        assert tally.dropped > last / 2
        assert one.tallies["clickhouse"].dropped == one.tallies["good"].dropped == 0
        hang.let_go.set()
        assert soon(lambda: len(hanging.users()) + tally.dropped == last)
    assert max(hanging.users().values()) == 1
    assert {"0", str(last - 1)} < hanging.users().keys()  # what was being sent, and the newest


def size(folder: Path) -> int:
    return sum(os.stat(folder / path).st_size for path in segments(folder))


def test_what_clickhouse_needs_is_never_given_up(rows, tmp_path):
    away, plugin = RecordingSink(*[SinkError("away")] * 10_000), RecordingSink()
    sinks = {"clickhouse": away, "plugin": plugin}
    last = record_segments(rows, 30)
    with shipping(tmp_path, sinks=sinks, most_bytes=LIMIT) as one:
        assert soon(lambda: len(plugin.users()) == last)
        time.sleep(0.6)
        assert len(segments(tmp_path)) == 31
        assert one.tallies["clickhouse"].dropped == one.tallies["plugin"].dropped == 0
        away.answers.clear()
        assert soon(lambda: len(away.users()) == last)


def test_a_plugin_loses_nothing_because_of_clickhouse(rows, tmp_path):
    """Both lag: giving up the plugin's rows would free nothing."""
    sinks = {name: RecordingSink(*[SinkError("away")] * 10_000) for name in ("clickhouse", "plugin")}
    last = record_segments(rows, 30)
    with shipping(tmp_path, sinks=sinks, most_bytes=LIMIT) as one:
        assert soon(lambda: one.tallies["plugin"].errors)
        time.sleep(0.6)
        assert one.tallies["plugin"].dropped == 0
        sinks["plugin"].answers.clear()
        assert soon(lambda: len(sinks["plugin"].users()) == last)
        sinks["clickhouse"].answers.clear()
        assert soon(lambda: len(sinks["clickhouse"].users()) == last)


def test_a_file_that_is_no_segment_is_left_alone_and_holds_up_nothing(rows, tmp_path):
    (rows.folder / f"{0:020}.seg").write_bytes(b"?" * 10_000)
    (rows.folder / "notes.txt").write_text("mine")
    (tmp_path / "journal" / "notes").mkdir()
    record(rows, 0, 10)
    rows.next_segment()
    sink = RecordingSink()
    with shipping(tmp_path, sinks={"clickhouse": sink}):
        assert soon(lambda: len(sink.users()) == 10)
        assert soon(lambda: len(segments(tmp_path)) == 2)
    assert (rows.folder / "notes.txt").exists()


def test_a_journal_that_is_deleted_while_it_is_read_hurts_nobody(rows, tmp_path):
    hang = Hang()
    sink = RecordingSink(hang)
    last = record_segments(rows, 3)
    with shipping(tmp_path, sinks={"clickhouse": sink}, rows=100):
        assert hang.reached.wait(10)
        for path in rows.folder.iterdir():
            path.unlink()
        hang.let_go.set()
        rows.next_segment()
        record(rows, last, last + 10)
        assert soon(lambda: str(last + 9) in sink.users())


def test_segments_that_only_others_need_are_not_opened_again_and_again(rows, tmp_path, monkeypatch):
    opened = Counter()

    def opening(path):
        opened[path] += 1
        return SegmentReader(path)

    monkeypatch.setattr(backlog, "SegmentReader", opening)
    hang = Hang()
    fast = RecordingSink()
    last = record_segments(rows, 10)
    with shipping(tmp_path, sinks={"clickhouse": fast, "slow": RecordingSink(hang)}, rows=100):
        assert hang.reached.wait(10)
        assert soon(lambda: len(fast.users()) == last)
        before = opened.total()
        for number in range(20):
            record(rows, last + number, last + number + 1)
            assert soon(lambda number=number: len(fast.users()) == last + number + 1)
        assert opened.total() - before < 20 + 10  # the shipper looks at the oldest one
        hang.let_go.set()


def test_lag_is_the_age_of_the_oldest_row_that_is_not_stored(rows, tmp_path):
    sink = RecordingSink(*[SinkError("away")] * 10_000)
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        tally = one.tallies["clickhouse"]
        assert tally.lag_ms == 0
        rows.append("operations", user="1", time=int(time.time()) - 100)
        rows.append("operations", user="2", time=int(time.time()))
        assert soon(lambda: 99_000 <= tally.lag_ms < 130_000)
        sink.answers.clear()
        assert soon(lambda: tally.lag_ms == 0)


def test_lag_is_known_before_a_sink_could_be_opened(rows, tmp_path):
    sink = RecordingSink()
    sink.opens = [SinkError("away")] * 10_000
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        rows.append("operations", user="1", time=int(time.time()) - 100)
        assert soon(lambda: one.tallies["clickhouse"].lag_ms >= 99_000)


def test_the_state_tells_what_waits_and_why(rows, tmp_path):
    sink = RecordingSink(*[SinkError("no such host")] * 10_000)
    record(rows, 0, 10)
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        assert soon(lambda: one.tallies["clickhouse"].errors)
        (state,) = one.shipper.status()["sinks"]
        assert (state["sink"], state["waiting_rows"], state["about"]) == ("clickhouse", 10, False)
        assert state["errors"] > 0
        assert "no such host" in state["error"]
        assert one.shipper.status()["journal"] == {"bytes": size(tmp_path), "segments": 1}
    folders = Folders(tmp_path / "journal", tmp_path / "rejected")
    (offline,) = status_from_disk(folders)["sinks"]
    assert (offline["sink"], offline["waiting_rows"]) == ("clickhouse", 10)


def test_rows_of_a_large_backlog_are_estimated(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(under_test, "COUNTED_BYTES", SEGMENT)
    last = record_segments(rows, 10)
    sink = RecordingSink(*[SinkError("away")] * 10_000)
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        (state,) = one.shipper.status()["sinks"]
    assert state["about"]
    assert abs(state["waiting_rows"] - last) < last / 10


def test_every_worker_is_read_at_the_same_pace(rows, tmp_path):
    """One with a long backlog must not keep the others' rows back."""
    busy = RowFolder(tmp_path / "journal", 7)
    record(busy, 0, 2000)
    for number in range(10):
        rows.append("operations", user=f"rare {number}")
    sink = RecordingSink()
    with shipping(tmp_path, sinks={"clickhouse": sink}, rows=100):
        assert soon(lambda: len(sink.users()) == 2010)
    first = [row[1] for row in sink.batches[sink.written[0][0]]]
    assert sum(user.startswith("rare") for user in first) == 10
    busy.close()
