"""Sinks that do as they are told, and a shipper around several of them."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cpro.analytics.shipper import Shipper
from cpro.analytics.sinks import Flush, Folders
from tests.support.processes import eventually


class RecordingSink:
    """Keeps what it is given by batch id. `answers` has what the next writes raise, or do first; None: nothing."""

    def __init__(self, *answers: Exception | Callable[[], None] | None):
        self.answers = list(answers)
        self.opens: list[Exception | None] = []
        self.batches: dict[str, list[tuple]] = {}
        self.written: list[tuple[str, str, int]] = []
        """Every attempt: id, table, rows."""
        self.closed = 0

    def open(self) -> None:
        if self.opens and (error := self.opens.pop(0)):
            raise error

    def write(self, batch) -> None:
        self.written.append((batch.id, batch.table.name, batch.rows))
        answer = self.answers.pop(0) if self.answers else None
        if callable(answer):
            answer()
        elif answer is not None:
            raise answer
        rows = list(zip(*(batch.columns[name] for name in batch.columns), strict=True))
        assert self.batches.setdefault(batch.id, rows) == rows, "the same id with other rows"

    def close(self) -> None:
        self.closed += 1

    def users(self) -> Counter:
        """How often each user's row is stored."""
        return Counter(row[1] for rows in list(self.batches.values()) for row in rows)


class Hang:
    """An answer that doesn't come until it is let go."""

    def __init__(self):
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        self.let_go.wait(60)


class Tally:
    def __init__(self):
        self.rows: Counter[str] = Counter()
        self.errors = self.dropped = self.lag_ms = 0

    def stored(self, table: str, rows: int) -> None:
        self.rows[table] += rows

    def failed(self) -> None:
        self.errors += 1

    def lost(self, rows: int) -> None:
        self.dropped += rows

    def lag(self, ms: int) -> None:
        self.lag_ms = ms


class Shipping:
    """A shipper at work on a journal."""

    def __init__(self, folder: Path, sinks: dict, *, rows: int = 1000, most_bytes: int = 1 << 30):
        self.tallies: dict[str, Tally] = {}
        folders = Folders(folder / "journal", folder / "rejected")
        self.shipper = Shipper(folders, sinks, Flush(0.02, rows), most_bytes, self._tally_of)
        self.shipper.start()

    def _tally_of(self, name: str) -> Tally:
        return self.tallies.setdefault(name, Tally())


@contextmanager
def shipping(folder: Path, patience_s: float = 5.0, **keywords) -> Iterator[Shipping]:
    one = Shipping(folder, **keywords)
    try:
        yield one
    finally:
        one.late = one.shipper.stop(patience_s)


def segments(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "journal").glob("*/*.seg"))


def soon(check: Callable[[], object]) -> bool:
    return eventually(check)
