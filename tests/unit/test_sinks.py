"""One sink: every row exactly once, whatever it answers and whenever the process ends."""

import errno
import json
import os
from pathlib import Path

import pytest

from cpro.analytics import sinks
from cpro.analytics.backlog import Backlog
from cpro.analytics.places import PlaceFile
from cpro.errors import SinkError, SinkRejectError, SinkSplitError
from cpro.sinktesting import RowFolder, SinkHarness, batch
from tests.support.sinks import Hang, RecordingSink, shipping, soon


@pytest.fixture
def rows(tmp_path: Path):
    folder = RowFolder(tmp_path / "journal")
    yield folder
    folder.close()


def record(rows: RowFolder, first: int, last: int, table: str = "operations") -> None:
    for number in range(first, last):
        rows.append(table, user=str(number), time=1_700_000_000 + number)


def once(last: int) -> dict[str, int]:
    return {str(number): 1 for number in range(last)}


def test_rows_arrive_with_their_values_and_a_batch_for_each_table(rows, tmp_path):
    sink = RecordingSink()
    rows.append(
        "operations", client="c", user="42", op="publish", channel="chat:1", duration=5, labels={"a": "b"}, time=9
    )
    rows.append("subscriptions", client="c", user="7", channel="chat:1", time=10)
    with shipping(tmp_path, sinks={"clickhouse": sink}):
        assert soon(lambda: len(sink.batches) == 2)
    stored = [row for one in sink.batches.values() for row in one]
    assert ("c", "42", "publish", "chat:1", "", 0, 0, 5, {"a": "b"}, "", "", 9) in stored
    assert ("c", "7", "chat:1", "", "", 10) in stored
    assert sink.closed == 1


def test_a_batch_is_cut_at_the_flush_size(rows, tmp_path):
    sink = RecordingSink()
    record(rows, 0, 95)
    with shipping(tmp_path, sinks={"clickhouse": sink}, rows=10):
        assert soon(lambda: sink.users() == once(95))
    assert [count for _, _, count in sink.written] == [10] * 9 + [5]


def test_what_fails_is_sent_again_with_the_same_rows_under_the_same_id(rows, tmp_path):
    sink = RecordingSink(SinkError("away"), ValueError("odd"), SystemExit(3))
    record(rows, 0, 10)
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        assert soon(lambda: sink.users() == once(10))
        assert one.tallies["clickhouse"].errors == 3
    assert len(set(sink.written)) == 1
    assert len(sink.written) == 4


def test_a_sink_that_can_not_be_opened_is_tried_again(rows, tmp_path):
    sink = RecordingSink()
    sink.opens = [SinkError("away"), OSError("no"), None]
    record(rows, 0, 3)
    with shipping(tmp_path, sinks={"clickhouse": sink}):
        assert soon(lambda: sink.users() == once(3))


def test_a_sink_that_never_opened_is_not_closed(tmp_path):
    sink = RecordingSink()
    sink.opens = [SinkError("away")] * 100
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        assert soon(lambda: one.tallies["clickhouse"].errors)
    assert (sink.closed, one.late) == (0, [])


def test_a_batch_that_is_too_big_goes_in_halves_until_it_fits(rows, tmp_path):
    sink = RecordingSink(SinkSplitError("big"), SinkSplitError("big"))
    record(rows, 0, 10)
    with shipping(tmp_path, sinks={"clickhouse": sink}):
        assert soon(lambda: sink.users() == once(10))
    assert [count for _, _, count in sink.written] == [10, 5, 2, 3, 5]
    assert len({name for name, _, _ in sink.written}) == 5


def test_halves_that_were_asked_for_stay_halves_after_a_restart(rows, tmp_path):
    hang = Hang()
    sink = RecordingSink(SinkSplitError("big"), None, hang)
    record(rows, 0, 10)
    with shipping(tmp_path, 0.1, sinks={"clickhouse": sink}) as killed:
        assert hang.reached.wait(10)
    assert killed.late == ["clickhouse"]
    again = RecordingSink()
    again.batches = sink.batches
    with shipping(tmp_path, sinks={"clickhouse": again}):
        assert soon(lambda: again.users() == once(10))
    assert [one[:2] for one in again.written] == [one[:2] for one in sink.written[1:]]
    hang.let_go.set()


def test_a_single_row_that_is_too_big_is_set_aside(rows, tmp_path):
    sink = RecordingSink(*[SinkSplitError("big")] * 2)
    record(rows, 0, 2)
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        assert soon(lambda: sink.users() == {"1": 1})
        assert soon(lambda: one.tallies["clickhouse"].dropped == 1)
    assert len(list((tmp_path / "rejected" / "clickhouse").glob("operations-*.native"))) == 1


def test_a_rejected_batch_is_kept_in_a_file_and_the_next_goes_on(rows, tmp_path):
    sink = RecordingSink(SinkRejectError("never"))
    record(rows, 0, 10)
    with shipping(tmp_path, sinks={"clickhouse": sink}, rows=5) as one:
        assert soon(lambda: len(sink.users()) == 5)
        assert one.tallies["clickhouse"].dropped == 5
    (file,) = (tmp_path / "rejected" / "clickhouse").iterdir()
    assert file.name == f"operations-{sink.written[0][0]}.native"
    expected = batch("operations", [{"user": str(n), "time": 1_700_000_000 + n} for n in range(5)])
    assert file.read_bytes() == expected.native


def test_a_lost_answer_is_asked_for_again_after_a_restart_by_the_same_batch(rows, tmp_path):
    """The process is killed while a batch is being sent; more rows have come when the next one starts."""
    hang = Hang()
    sink = RecordingSink(hang)
    record(rows, 0, 10)
    with shipping(tmp_path, 0.1, sinks={"clickhouse": sink}):
        assert hang.reached.wait(10)
    record(rows, 10, 20)
    again = RecordingSink()
    with shipping(tmp_path, sinks={"clickhouse": again}):
        assert soon(lambda: again.users() == once(20))
    assert again.written[0] == sink.written[0]
    hang.let_go.set()


def test_nothing_is_sent_twice_after_a_clean_stop(rows, tmp_path):
    record(rows, 0, 10)
    with shipping(tmp_path, sinks={"clickhouse": RecordingSink()}):
        pass
    record(rows, 10, 20)
    again = RecordingSink()
    with shipping(tmp_path, sinks={"clickhouse": again}):
        assert soon(lambda: len(again.users()) == 10)
    assert min(map(int, again.users())) == 10


def test_stopping_sends_what_is_there_but_does_not_wait_for_a_sink_that_fails(rows, tmp_path):
    good, bad = RecordingSink(), RecordingSink(*[SinkError("away")] * 1000)
    with shipping(tmp_path, 30.0, sinks={"clickhouse": good, "bad": bad}) as one:
        assert soon(lambda: (tmp_path / "journal").exists())
        record(rows, 0, 100)
    assert good.users() == once(100)
    assert one.late == []


@pytest.mark.parametrize("torn", [b"", b"{", b"\xff\xfe", b'{"version": 99}', b'{"version":1,"positions":[]}', b"null"])
def test_a_place_that_can_not_be_read_starts_over_from_what_is_kept(rows, tmp_path, torn):
    sink = RecordingSink()
    record(rows, 0, 10)
    file = tmp_path / "journal" / "places" / "clickhouse.json"
    file.parent.mkdir()
    file.write_bytes(torn)
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        assert soon(lambda: sink.users() == once(10))
        assert one.tallies["clickhouse"].errors == 1
    assert json.loads(file.read_text())["version"] == 1


def test_a_place_of_another_journal_is_not_believed(rows, tmp_path):
    """The journal was deleted; its files' names come again, with other ids."""
    record(rows, 0, 10)
    with shipping(tmp_path, sinks={"clickhouse": RecordingSink()}):
        pass
    rows.close()
    place = (tmp_path / "journal" / "places" / "clickhouse.json").read_bytes()
    for path in (tmp_path / "journal" / "0").iterdir():
        path.unlink()
    other = RowFolder(tmp_path / "journal")
    (tmp_path / "journal" / "places" / "clickhouse.json").write_bytes(place)
    record(other, 0, 5)
    sink = RecordingSink()
    with shipping(tmp_path, sinks={"clickhouse": sink}):
        assert soon(lambda: sink.users() == once(5))
    other.close()


def test_a_place_that_can_not_be_written_keeps_rows_back_until_it_can(rows, tmp_path):
    """Sending without the boundaries on disk could double or lose rows."""
    sink = RecordingSink()
    record(rows, 0, 10)
    blocked = tmp_path / "journal" / "places"
    blocked.write_text("a file where the folder should be")
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        assert soon(lambda: one.tallies["clickhouse"].errors)
        assert sink.written == []
        blocked.unlink()
        assert soon(lambda: sink.users() == once(10))


def test_names_of_sinks_are_safe_as_names_of_files(tmp_path):
    for name in ("../up", "a/b", "größe", "plain-1"):
        PlaceFile(tmp_path, name).save(PlaceFile(tmp_path, name).load()[0])
    assert sorted(PlaceFile.names(tmp_path)) == sorted(["../up", "a/b", "größe", "plain-1"])


def test_the_harness_is_what_authors_of_sinks_need():
    sink = RecordingSink(SinkError("away"))
    with SinkHarness(sink, rows=2) as cpro:
        for number in range(5):
            cpro.record("publications", user=str(number), size=number)
        assert cpro.shipped(5)
        assert (cpro.rows, cpro.errors, cpro.dropped) == ({"publications": 5}, 1, 0)
    assert sink.closed == 1


def test_a_full_disk_does_not_keep_rows_from_leaving(rows, tmp_path, monkeypatch):
    """Only what was sent can be deleted: there must be room to note what is being sent."""
    sink = RecordingSink()
    record(rows, 0, 10)
    places = tmp_path / "journal" / "places"
    with shipping(tmp_path, sinks={"clickhouse": sink}):
        assert soon(lambda: sink.users() == once(10))
        assert soon((places / "clickhouse.room").exists)
        opened = os.open

        def full(path, flags, *mode, **where):
            has_room = not (places / "clickhouse.room").exists()
            if str(path).endswith(".room") or (str(path).endswith("clickhouse.new") and not has_room):
                raise OSError(errno.ENOSPC, "No space left on device")
            return opened(path, flags, *mode, **where)

        monkeypatch.setattr(os, "open", full)
        record(rows, 10, 20)
        assert soon(lambda: sink.users() == once(20))
        assert not (places / "clickhouse.room").exists()
        monkeypatch.undo()
        record(rows, 20, 30)
        assert soon((places / "clickhouse.room").exists)


def test_a_fault_of_cpros_own_costs_a_pause_and_no_row(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(sinks, "LAST_RETRY_S", 0.02)
    reading, faults = Backlog.next_parts, [MemoryError(), RuntimeError("bug")]

    def next_parts(self, *arguments):
        if faults:
            raise faults.pop()
        return reading(self, *arguments)

    monkeypatch.setattr(Backlog, "next_parts", next_parts)
    sink = RecordingSink()
    record(rows, 0, 10)
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        assert soon(lambda: sink.users() == once(10))
        assert one.tallies["clickhouse"].errors == 2


def test_damaged_rows_are_skipped_and_counted(rows, tmp_path):
    sink = RecordingSink()
    record(rows, 1_000_000, 1_000_010)
    path = next(rows.folder.iterdir())
    at = path.read_bytes().index(b"\x071000005")  # the row of a user: length and text
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\x07X")
    with shipping(tmp_path, sinks={"clickhouse": sink}) as one:
        assert soon(lambda: len(sink.users()) == 9)
        assert one.tallies["clickhouse"].errors == 1
    assert "1000005" not in sink.users()
