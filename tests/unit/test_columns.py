"""Records -> columns: nothing is lost or mixed up, a bad record leaves no trace. The engine is asked in services/."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.columns import TYPES, Blocks
from cpro._fast.journal import Journal, RowWriter, SegmentReader
from cpro._fast.nativeblock import NativeBlock
from cpro._fast.segment import Segment
from cpro.analytics.batch import Batch
from cpro.analytics.schema import (
    BY_NUMBER,
    CLICKHOUSE_TYPES,
    CONNECTIONS,
    OPERATIONS,
    SUBSCRIPTIONS,
    TABLES,
    VERSION,
)
from tests.support.analytics import LAYOUT, blocks_of, default_of, operation, record, row_of, rows_of


def read(blocks, table):
    """Rows of a table's block."""
    block = NativeBlock(blocks.block(table.number))
    assert block.columns == {column.name: column.type for column in table.columns}
    assert list(block.columns) == [column.name for column in table.columns]
    return list(zip(*(block.values(column.name) for column in table.columns), strict=True))


def test_types_are_those_of_the_schema():
    assert {kind: name.decode() for kind, name in TYPES.items()} == CLICKHOUSE_TYPES


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@given(data=st.data())
def test_rows_come_out_as_they_were_recorded(table, data):
    recorded = data.draw(st.lists(rows_of(table), min_size=1, max_size=20))
    blocks = blocks_of(table, recorded)
    assert blocks.rows(table.number) == len(recorded)
    assert read(blocks, table) == recorded


@given(st.lists(st.one_of(*(st.tuples(st.just(table), rows_of(table)) for table in TABLES)), max_size=30))
def test_tables_do_not_mix(recorded):
    blocks = Blocks(LAYOUT)
    for table, row in recorded:
        blocks.add_record(table.number, record(table, row))
    for table in TABLES:
        wanted = [row for other, row in recorded if other is table]
        assert blocks.rows(table.number) == len(wanted)
        if wanted:
            assert read(blocks, table) == wanted


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@given(data=st.data())
def test_a_bad_record_leaves_nothing_behind(table, data):
    """Every way to cut or bend a record between two good ones."""
    before, bad, after = (data.draw(rows_of(table)) for _ in range(3))
    raw = bytearray(record(table, bad))
    del raw[data.draw(st.integers(0, len(raw))) :]
    for place in data.draw(st.lists(st.integers(0, max(0, len(raw) - 1)), max_size=3)):
        if raw:
            raw[place] = data.draw(st.integers(0, 255))
    blocks = blocks_of(table, [before])
    taken = blocks.add_record(table.number, bytes(raw))
    blocks.add_record(table.number, record(table, after))
    found = read(blocks, table)
    assert blocks.bad == (not taken)
    assert [found[0], found[-1]] == [before, after]
    assert len(found) == 2 + taken
    if not taken:
        untouched = blocks_of(table, [before, after])
        assert blocks.block(table.number) == untouched.block(table.number)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@given(data=st.data())
def test_an_older_record_gets_defaults(table, data):
    row = data.draw(rows_of(table))
    known = data.draw(st.integers(0, len(row)))
    blocks = blocks_of(table, [row, row[:known], row])
    assert read(blocks, table)[1] == row[:known] + tuple(default_of(kind) for kind in table.kinds[known:])


def test_a_newer_record_gives_what_is_known():
    blocks = Blocks([(1, LAYOUT[0][1][:5])])
    assert blocks.add_record(1, record(OPERATIONS, operation(1)))
    assert NativeBlock(blocks.block(1)).values("channel"[:7]) == [operation(1)[3]]


def test_segments_are_read_where_they_lie(tmp_path):
    """Damage in the middle, rows of tables that nobody wants, and a range that ends before the end."""
    segment = Segment.create(str(tmp_path / "1.seg"), 1 << 20, VERSION)
    journal = Journal()
    journal.switch(segment)
    writers = {number: RowWriter(journal, number, BY_NUMBER[number].kinds) for number in (1, 3)}
    ends = []
    for number in range(10):
        assert writers[1].append(operation(number))
        assert writers[3].append(row_of(SUBSCRIPTIONS, user=f"user-{number}"))
        ends.append(segment.committed)
    with open(tmp_path / "1.seg", "r+b") as file:
        file.seek(ends[4] - 1)
        file.write(b"\xff")
    reader = SegmentReader(str(tmp_path / "1.seg"))
    blocks = Blocks([entry for entry in LAYOUT if entry[0] == 1])
    assert blocks.add(reader, SegmentReader.START, ends[8]) == 9
    assert blocks.bad == 8, "subscriptions are of no table here, and one of them is damaged"
    assert read(blocks, OPERATIONS) == [operation(number) for number in range(9)]
    assert blocks.add(reader, ends[8], ends[9]) == 1
    assert blocks.rows(1) == 10
    reader.close()
    segment.close()


def test_a_table_that_is_not_there_has_no_rows():
    with pytest.raises(KeyError):
        Blocks(LAYOUT).add_record(9, b"")


@pytest.mark.parametrize("words", [1, 2, 255, 256, 257, 65_535, 65_536, 65_537, 70_000])
def test_words_are_told_apart_however_many(words):
    recorded = [operation(number, op=f"op-{number % words}") for number in range(words)]
    random.Random(words).shuffle(recorded)
    block = NativeBlock(blocks_of(OPERATIONS, recorded).block(1))
    assert block.values("op") == [row[2] for row in recorded]


def test_rows_of_a_bad_record_do_not_widen_the_dictionary():
    blocks = blocks_of(OPERATIONS, [operation(number, op=f"op-{number}") for number in range(256)])
    size = blocks.size(1)
    assert not blocks.add_record(1, record(OPERATIONS, operation(0, op="another"))[:-1])
    assert blocks.size(1) == size
    assert blocks.add_record(1, record(OPERATIONS, operation(0, op="op-255")))
    assert NativeBlock(blocks.block(1)).values("op")[-2:] == ["op-255", "op-255"]


def test_long_texts_stay_whole():
    text = "ü" * 500_000
    recorded = [operation(1, user=text, op=text, labels={text: text}), operation(2)]
    assert read(blocks_of(OPERATIONS, recorded), OPERATIONS) == recorded


def test_what_is_cleared_is_gone_and_the_next_batch_is_like_the_first():
    recorded = [operation(number, op=f"op-{number % 300}") for number in range(1000)]
    blocks = blocks_of(OPERATIONS, recorded)
    first = blocks.block(1)
    blocks.clear()
    assert blocks.rows(1) == 0
    assert blocks.block(1) == b""
    for row in recorded:
        blocks.add_record(1, record(OPERATIONS, row))
    assert blocks.block(1) == first


def test_the_size_is_told_before_the_block_is_made():
    blocks = blocks_of(CONNECTIONS, [tuple(default_of(kind) for kind in CONNECTIONS.kinds)] * 100)
    heads = sum(2 + len(column.name) + len(column.type) for column in CONNECTIONS.columns) + 2
    assert len(blocks.block(2)) == blocks.size(2) + heads


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_block_is_refused_and_never_crashes(data):
    """Blocks come back from files that were set aside."""
    table = data.draw(st.sampled_from(TABLES))
    raw = bytearray(blocks_of(table, data.draw(st.lists(rows_of(table), min_size=1, max_size=3))).block(table.number))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(1, len(raw))) :]
    try:
        block = NativeBlock(bytes(raw))
        for name in block.columns:
            assert len(block.values(name)) == block.rows
            block.buffers(name)
    except (ValueError, MemoryError):
        pass


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(deadline=None)  # the first one imports pyarrow
@given(data=st.data())
def test_arrow_has_the_same_rows(table, data):
    recorded = data.draw(st.lists(rows_of(table), min_size=1, max_size=10))
    blocks = blocks_of(table, recorded)
    batch = Batch("1", table, len(recorded), blocks.block(table.number))
    arrow = batch.to_arrow()
    arrow.validate(full=True)
    for column in table.columns:
        values = arrow[column.name].to_pylist()
        if column.type.startswith("Map"):
            values = [dict(value) for value in values]
        elif column.type == "DateTime":
            values = [int(value.timestamp()) for value in values]
        assert values == batch.columns[column.name]


def test_arrow_replaces_what_is_no_text():
    blocks = blocks_of(OPERATIONS, [operation(1, user=b"\xff", op=b"\xfe", labels={})])
    batch = Batch("1", OPERATIONS, 1, blocks.block(1))
    assert batch.to_arrow()["user"].to_pylist() == batch.columns["user"] == ["\ufffd"]
    assert batch.to_arrow()["op"].to_pylist() == ["\ufffd"]


def test_a_batch_knows_its_columns_without_decoding_them():
    batch = Batch("1", OPERATIONS, 0, b"")
    assert list(batch.columns) == [column.name for column in OPERATIONS.columns]
    assert len(batch.columns) == len(OPERATIONS.columns)
