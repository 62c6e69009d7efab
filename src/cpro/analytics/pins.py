"""Which of several servers a batch was sent to: only that one can say whether it has the batch already.

A file of lines `batch server`, each on the disk before its batch is sent. The last ones are kept even when they were
answered: the place in the journal moves on only after all batches of a range are.
"""

import os
from pathlib import Path
from typing import Final

KEPT: Final = 512
"""Pins; a range has a batch per table, or some more where it was sent in halves."""
_MOST_LINES: Final = 8192


class Pins:
    """Of one sink. Raises OSError where the disk does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._servers: dict[str, str] = {}
        self._lines = _MOST_LINES  # begin with a file of our own: the old one may end in a torn line
        if path.exists():
            *whole, _ = path.read_text("ascii", "replace").split("\n")
            for batch, _, server in (line.partition(" ") for line in whole):
                self._remember(batch, server)

    def get(self, batch: str) -> str | None:
        return self._servers.get(batch) or None

    def drop(self, batch: str) -> None:
        """The server surely has nothing of it."""
        self.put(batch, "")

    def put(self, batch: str, server: str) -> None:
        """Returns when it is on the disk."""
        if self._servers.get(batch) == server:
            return
        self._remember(batch, server)
        if self._lines >= _MOST_LINES:
            self._rewrite()
            return
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"{batch} {server}\n")
            file.flush()
            os.fdatasync(file.fileno())
        self._lines += 1

    def _remember(self, batch: str, server: str) -> None:
        self._servers.pop(batch, None)
        self._servers[batch] = server
        while len(self._servers) > KEPT:
            del self._servers[next(iter(self._servers))]

    def _rewrite(self) -> None:
        following = self._path.with_suffix(".new")
        with following.open("w", encoding="ascii") as file:
            file.writelines(f"{batch} {server}\n" for batch, server in self._servers.items())
            file.flush()
            os.fsync(file.fileno())
        following.replace(self._path)
        self._lines = len(self._servers)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
