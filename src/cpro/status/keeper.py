"""Looks after the node's table of statuses: gives it room before it is full, and the disk what it holds.

A thread of the supervisor, so that no request ever waits for a disk.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final

from cpro.errors import CproError
from cpro.logs import Occasional

from .generations import Generations

log = logging.getLogger(__name__)

LOOK_S: Final = 0.1
SYNC_S: Final = 1.0
"""A power cut loses what came in that time before it."""
CLOSE_S: Final = 5.0


class Keeper:
    """Owns the table it is given, until `close`."""

    def __init__(self, table: Generations, oldest: Callable[[], int]) -> None:
        """`oldest` is the time (Unix seconds) up to which statuses have expired by now."""
        self._table = table
        self._oldest = oldest
        self._occasional = Occasional(log)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """A last time, then unmap."""
        self._ending.set()
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():  # else a disk hangs, and the process ends without it
            self._table.close()

    def _run(self) -> None:
        looks = round(SYNC_S / LOOK_S)
        look = 0
        while not self._ending.wait(LOOK_S):
            look = (look + 1) % looks
            self._try(self._make_room)
            if look == 0:
                self._try(self._table.sync)
        self._try(self._table.sync)

    def _make_room(self) -> None:
        if self._table.needs_work:
            self._table.try_make_room(self._oldest())

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (CproError, OSError) as error:
            self._occasional.warning("keep", "status table is in trouble", error=str(error))
