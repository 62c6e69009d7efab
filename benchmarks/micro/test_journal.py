"""What recording an operation costs the worker, encoding and checksum included, beside a list that takes bytes."""

import tempfile

import pytest

from cpro._fast.journal import START, Journal, RowWriter, SegmentReader
from cpro._fast.segment import Segment
from cpro.analytics.schema import OPERATIONS

ROW = (
    *("9336a229-2400-4ebc-8c50-000000000042", "100042", "publish", "chat:room42", "", 0, 0, 123_456, {}),
    *("chat", "node-1.example.com", 1_700_000_000),
)
CALLS = 20_000
SIZE = 64 * 1024 * 1024


@pytest.fixture
def segment():
    with tempfile.TemporaryDirectory() as folder:
        made = Segment.create(f"{folder}/1.seg", SIZE, 1)
        made.populate(SIZE)  # as the thread that prepares segments does it, ahead of the appends
        yield made
        made.close()


@pytest.fixture
def rows(segment):
    journal = Journal()
    journal.switch(segment)
    yield RowWriter(journal, OPERATIONS.number, OPERATIONS.kinds)
    assert sum(journal.dropped) == 0


def test_append_of_an_operation(measure, rows):
    def run(calls, append=rows.append):
        for _ in range(calls):
            append(ROW)

    measure(run, CALLS)


def test_append_of_bytes_to_a_list(measure):
    record = b"x" * 90

    def run(calls):
        taken = []
        append = taken.append
        for _ in range(calls):
            append(record)

    measure(run, CALLS)


def test_reading_an_operation_back(measure, rows, segment):
    """Finding where the next batch ends, with every checksum, per row."""
    for _ in range(CALLS):
        rows.append(ROW)
    reader = SegmentReader(segment.path)

    def run(calls):
        assert reader.end_of(START, calls, SIZE)[1] == calls

    measure(run, CALLS)
    reader.close()
