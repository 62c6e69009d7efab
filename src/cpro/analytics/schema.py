"""The four tables, with Centrifugo PRO's names, columns and types: the nouns that recorder, journal and sinks share.

A row is recorded as values in the order of its table's columns. In the journal each value is written by the column's
`kind`, the first byte of a record is the table's number; `_fast.rows` has the formats. Numbers of tables and the order
of columns are part of the journal's format: new columns go to the end, and `VERSION` goes up.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

VERSION: Final = 1
"""Of the rows in the journal, stands in every segment's header."""


class Kind(IntEnum):
    """How a value is recorded and which ClickHouse type it has."""

    TEXT = 1
    """str or bytes; `String`"""
    WORD = 2
    """str or bytes of which there are few different ones; `LowCardinality(String)`"""
    ID = 3
    """str, in general the text of a UUID, which is kept as its 16 bytes; `String`"""
    U32 = 4
    """int; `UInt32`"""
    U64 = 5
    """int; `UInt64`"""
    I64 = 6
    """int; `Int64`"""
    SECONDS = 7
    """int, seconds since 1970; `DateTime`"""
    TEXT_MAP = 8
    """dict of str to str; `Map(String, String)`"""
    TEXTS_MAP = 9
    """dict of str to list of str; `Map(String, Array(String))`"""


CLICKHOUSE_TYPES: Final = {
    Kind.TEXT: "String",
    Kind.WORD: "LowCardinality(String)",
    Kind.ID: "String",
    Kind.U32: "UInt32",
    Kind.U64: "UInt64",
    Kind.I64: "Int64",
    Kind.SECONDS: "DateTime",
    Kind.TEXT_MAP: "Map(String, String)",
    Kind.TEXTS_MAP: "Map(String, Array(String))",
}


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind

    @property
    def type(self) -> str:
        """In ClickHouse's words."""
        return CLICKHOUSE_TYPES[self.kind]


@dataclass(frozen=True, slots=True)
class Table:
    number: int
    name: str
    columns: tuple[Column, ...]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(column.kind for column in self.columns)


def _table(number: int, name: str, /, **kinds: Kind) -> Table:
    return Table(number, name, tuple(Column(column, kind) for column, kind in kinds.items()))


OPERATIONS: Final = _table(
    1,
    "operations",
    client=Kind.ID,
    user=Kind.TEXT,
    op=Kind.WORD,
    channel=Kind.TEXT,
    method=Kind.TEXT,
    error=Kind.U32,
    disconnect=Kind.U32,
    duration=Kind.U64,  # ns
    labels=Kind.TEXT_MAP,
    namespace=Kind.WORD,
    node=Kind.WORD,
    time=Kind.SECONDS,
)
CONNECTIONS: Final = _table(
    2,
    "connections",
    client=Kind.ID,
    user=Kind.TEXT,
    name=Kind.WORD,
    version=Kind.WORD,
    transport=Kind.WORD,
    headers=Kind.TEXTS_MAP,
    metadata=Kind.TEXTS_MAP,
    labels=Kind.TEXT_MAP,
    latency=Kind.I64,  # ns
    node=Kind.WORD,
    protocol=Kind.WORD,
    connected_at=Kind.SECONDS,
    time=Kind.SECONDS,
)
SUBSCRIPTIONS: Final = _table(
    3,
    "subscriptions",
    client=Kind.ID,
    user=Kind.TEXT,
    channel=Kind.TEXT,
    namespace=Kind.WORD,
    node=Kind.WORD,
    time=Kind.SECONDS,
)
PUBLICATIONS: Final = _table(
    4,
    "publications",
    uid=Kind.ID,
    channel=Kind.TEXT,
    source=Kind.WORD,
    size=Kind.U64,  # bytes of the payload
    client=Kind.ID,
    user=Kind.TEXT,
    namespace=Kind.WORD,
    node=Kind.WORD,
    time=Kind.SECONDS,
)

TABLES: Final = (OPERATIONS, CONNECTIONS, SUBSCRIPTIONS, PUBLICATIONS)
BY_NUMBER: Final = {table.number: table for table in TABLES}
