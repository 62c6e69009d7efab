"""Rows of analytics for tests: strategies for what can be recorded, and what of it is to be read back."""

from uuid import UUID

from hypothesis import strategies as st

from cpro._fast import rows
from cpro._fast.columns import Blocks
from cpro.analytics.batch import Batch
from cpro.analytics.schema import BY_NUMBER, TABLES, Kind, Table

LAYOUT = [(table.number, [(column.name, column.kind) for column in table.columns]) for table in TABLES]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
seconds = st.integers(0, 2**32 - 1)
VALUES = {
    Kind.TEXT: texts,
    Kind.WORD: st.sampled_from(["", "publish", "é"]) | texts,
    Kind.ID: st.uuids().map(str) | texts | st.uuids().map(lambda uuid: str(uuid).upper()),
    Kind.U32: st.integers(0, 2**32 - 1),
    Kind.U64: st.integers(0, 2**64 - 1),
    Kind.I64: st.integers(-(2**63), 2**63 - 1),
    Kind.SECONDS: seconds,
    Kind.TEXT_MAP: st.dictionaries(texts, texts, max_size=4),
    Kind.TEXTS_MAP: st.dictionaries(texts, st.lists(texts, max_size=3), max_size=4),
}


def rows_of(table: Table) -> st.SearchStrategy[tuple]:
    return st.tuples(*(VALUES[column.kind] for column in table.columns))


def default_of(kind: Kind) -> object:
    return {Kind.TEXT: "", Kind.WORD: "", Kind.ID: "", Kind.TEXT_MAP: {}, Kind.TEXTS_MAP: {}}.get(kind, 0)


def record(table: Table, row: tuple) -> bytes:
    return rows.encode(table.kinds[: len(row)], row)


def blocks_of(table: Table, recorded: list[tuple]) -> Blocks:
    blocks = Blocks(LAYOUT)
    for row in recorded:
        assert blocks.add_record(table.number, record(table, row))
    return blocks


def batch_of(table: Table, recorded: list[tuple], token: str = "t") -> Batch:
    blocks = blocks_of(table, recorded)
    return Batch(token, table, blocks.rows(table.number), blocks.block(table.number))


def operation(number: int, **values: object) -> tuple:
    """One row of `operations`, by default the publication of one of a hundred users."""
    return _row(
        BY_NUMBER[1],
        {
            "client": str(UUID(int=number % 1000 + (1 << 100))),
            "user": f"user-{number % 100}",
            "op": "publish",
            "channel": f"chat:{number % 10}",
            "duration": 1000 * (number % 1000),
            "namespace": "chat",
            "node": "node-1",
        },
        values,
    )


def row_of(table: Table, **values: object) -> tuple:
    return _row(table, {}, values)


def _row(table: Table, defaults: dict[str, object], values: dict[str, object]) -> tuple:
    assert values.keys() <= {column.name for column in table.columns}
    known = defaults | values
    return tuple(known.get(column.name, default_of(column.kind)) for column in table.columns)
