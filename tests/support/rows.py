"""Rows of analytics as a test reads them: out of the segments of a journal, by table, as dicts by column."""

from pathlib import Path

from cpro._fast.journal import SegmentReader
from cpro._fast.rows import decode
from cpro.analytics.schema import BY_NUMBER, Table
from tests.support.service import Service

Row = dict[str, object]
TABLES = ("connections", "subscriptions", "operations", "publications")
NOBODY_THERE = "http://me:hush@127.0.0.1:1"
"""In the place of a ClickHouse: rows stay in the journal."""


def named(table: Table, values: tuple) -> Row:
    return {column.name: value for column, value in zip(table.columns, values, strict=True)}


def rows_in(folder: Path) -> dict[str, list[Row]]:
    """Every row in the segments anywhere below `folder`, in the order of each segment."""
    found: dict[str, list[Row]] = {table.name: [] for table in BY_NUMBER.values()}
    for path in sorted(folder.rglob("*.seg")):
        reader = SegmentReader(str(path))
        for number, data in reader.records(SegmentReader.START, reader.committed):
            table = BY_NUMBER[number]
            found[table.name].append(named(table, decode(table.kinds, data)))
        assert reader.bad == 0, f"{path} has bad records"
        reader.close()
    return found


def analytics(*tables: str, **exports: dict) -> dict:
    """Settings of a cpro that records: these tables or all, with more of `export` by table."""
    export = {name: {"enabled": True, **exports.get(name, {})} for name in tables or TABLES}
    return {
        "clickhouse_analytics": {
            "enabled": True,
            "clickhouse_dsn": [NOBODY_THERE],
            "skip_ping_on_start": True,
            "max_journal_size": "64MiB",
            "export": export,
        },
        "node": {"name": "n1"},
        "shutdown": {"timeout": "2s"},
    }


def rows_of(cpro: Service) -> dict[str, list[Row]]:
    """What a cpro has recorded and not shipped."""
    return rows_in(cpro.folder / "data" / "journal")
