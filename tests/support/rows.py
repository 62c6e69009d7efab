"""Rows of analytics as a test reads them: out of the segments of a journal, by table, as dicts by column."""

import time
from collections.abc import Callable
from pathlib import Path

from cpro._fast.journal import SegmentReader
from cpro._fast.rows import decode
from cpro.analytics.schema import BY_NUMBER, Table

Row = dict[str, object]


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


def await_rows(folder: Path, are_there: Callable[[dict[str, list[Row]]], bool], timeout_s: float = 5.0) -> dict:
    """The rows once `are_there` says so, or whatever there is after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not are_there(rows := rows_in(folder)) and time.monotonic() < until:
        time.sleep(0.01)
    return rows
