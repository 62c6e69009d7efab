"""Rows of one table on their way to a sink: a ClickHouse block, and its columns for whom those suit more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cpro._fast.nativeblock import NativeBlock

from .schema import Table

if TYPE_CHECKING:
    import pyarrow as pa


class Columns(Mapping[str, list[object]]):
    """Name -> the column's values, decoded when first asked for: str, int, dict of str to str or to list of str.

    `time` and other moments are seconds since 1970.
    """

    def __init__(self, table: Table, block: NativeBlock) -> None:
        self._names = tuple(column.name for column in table.columns)
        self._block = block
        self._decoded: dict[str, list[object]] = {}

    def __getitem__(self, name: str) -> list[object]:
        if name not in self._decoded:
            self._decoded[name] = self._block.values(name)
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Batch:
    """At least one row, of one table."""

    id: str
    """Up to 64 ASCII characters, no space. The same id always comes with the same rows, however often and late."""
    table: Table
    rows: int
    native: bytes
    """One block in ClickHouse's Native format, all columns in the table's order."""

    @cached_property
    def columns(self) -> Columns:
        return Columns(self.table, self._block)

    def to_arrow(self) -> pa.Table:
        """Words become dictionary arrays, moments `timestamp[s, UTC]`, maps Arrow maps. Needs the package pyarrow."""
        from .arrow import build_table  # imports pyarrow, which is optional

        return build_table(self._block, self.table)

    @cached_property
    def _block(self) -> NativeBlock:
        return NativeBlock(self.native)
