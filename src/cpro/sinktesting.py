"""For tests of sinks: batches made of rows, and a real journal with a real shipper around a sink.

Part of `cpro.testing`, which authors of plugins import it from.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cpro._fast.columns import Blocks
from cpro._fast.journal import Journal, RowWriter
from cpro._fast.rows import encode
from cpro._fast.segment import Segment
from cpro.analytics.batch import Batch
from cpro.analytics.schema import TABLES, VERSION, Kind, Table
from cpro.analytics.sinks import Flush, Folders, Runner
from cpro.extension import Sink

SEGMENT_BYTES: Final = 1 << 20
_EMPTY: Final[dict[Kind, Any]] = {
    Kind.TEXT: "",
    Kind.WORD: "",
    Kind.ID: "",
    Kind.U32: 0,
    Kind.U64: 0,
    Kind.I64: 0,
    Kind.SECONDS: 0,
    Kind.TEXT_MAP: {},
    Kind.TEXTS_MAP: {},
}
_BY_NAME: Final = {table.name: table for table in TABLES}


def batch(table: str, rows: Iterable[Mapping[str, Any]], id: str = "batch-1") -> Batch:  # noqa: A002 -- as in Batch
    """What a sink is given: `batch("operations", [{"user": "42", "op": "publish"}])`; what isn't named is empty."""
    known = _BY_NAME[table]
    blocks = Blocks([(known.number, [(column.name, int(column.kind)) for column in known.columns])])
    for row in rows:
        blocks.add_record(known.number, encode(known.kinds, _values(known, row)))
    return Batch(id, known, blocks.rows(known.number), blocks.block(known.number))


class RowFolder:
    """One worker's part of a journal, without the worker."""

    def __init__(self, journal: Path, worker: int = 0, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = journal / str(worker)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._segment_bytes = segment_bytes
        self._journal = Journal()
        self._writers = {
            table.name: RowWriter(self._journal, table.number, [int(kind) for kind in table.kinds]) for table in TABLES
        }
        self._segment: Segment | None = None
        self.number = max((int(path.stem) for path in self.folder.glob("*.seg")), default=0)
        self.next_segment()

    def next_segment(self) -> Path:
        """Go on in another file; the one so far is sealed."""
        self.number += 1
        path = self.folder / f"{self.number:020}.seg"
        before, self._segment = self._segment, Segment.create(str(path), self._segment_bytes, VERSION)
        self._journal.switch(self._segment)
        if before is not None:
            before.close()
        return path

    def append(self, table: str, **values: Any) -> None:  # noqa: ANN401 -- whatever a column takes
        row = _values(_BY_NAME[table], values)
        if not self._writers[table].append(row):
            self.next_segment()
            assert self._writers[table].append(row), "a row larger than a segment"  # noqa: S101

    def close(self) -> None:
        """As when the worker ends."""
        self._journal.switch(None)
        if self._segment is not None:
            self._segment.close()
            self._segment = None


class SinkHarness:
    """A journal and the thread that sends it to one sink, in a temporary folder. A context manager.

    `record` rows and wait until they are `shipped`; what the sink raises has the consequences it has in cpro.
    """

    def __init__(self, sink: Sink, *, rows: int = 100_000) -> None:
        """A batch has at most that many `rows`."""
        self._sink = sink
        self._flush = Flush(interval_s=0.02, rows=rows)
        self.rows: Counter[str] = Counter()
        """Stored, by table, as `cpro_sink_rows_total` counts them."""
        self.errors = 0
        """As `cpro_sink_errors_total` and `cpro_sink_dropped_rows_total` count them."""
        self.dropped = 0

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="cpro-testing-")
        folder = Path(self._temporary.name)
        self.set_aside = folder / "rejected"
        """The folder of batches that were rejected."""
        self.journal = RowFolder(folder / "journal")
        folders = Folders(folder / "journal", self.set_aside)
        self._runner = Runner("tested", self._sink, folders, self._flush, self, blocks=False)
        self._runner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.journal.close()
        self._runner.stop()
        self._runner.join(10.0)
        self._temporary.cleanup()

    def record(self, table: str, **values: Any) -> None:  # noqa: ANN401 -- whatever a column takes
        self.journal.append(table, **values)

    def shipped(self, rows: int, timeout_s: float = 10.0) -> bool:
        """Whether so many rows are stored in time."""
        return self.until(lambda: self.rows.total() >= rows, timeout_s)

    def until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        """Whether it comes true in time."""
        until = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    # -- what the runner tells

    def stored(self, table: str, rows: int) -> None:
        self.rows[table] += rows

    def failed(self) -> None:
        self.errors += 1

    def lost(self, rows: int) -> None:
        self.dropped += rows

    def lag(self, ms: int) -> None:
        pass


def _values(table: Table, row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = {column.name for column in table.columns}
    strangers = row.keys() - names
    if strangers:
        raise ValueError(f"{table.name} has no column {', '.join(sorted(strangers))}")
    return tuple(row.get(column.name, _EMPTY[column.kind]) for column in table.columns)
