"""What goes wrong at one sink: it is tried again until it goes right, counted, and people are told why it has to be."""

import logging
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from cpro.errors import SinkRejectError, SinkSplitError
from cpro.logs import Occasional, fields

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 10.0
"""Wait before what failed is tried again: doubles, and half of it is chance."""


class StoppedError(Exception):
    """The service stops: leave everything as it stands on disk."""


class Troubles:
    """One sink's. `stopping` ends every wait; `failed` hears of each failure."""

    def __init__(self, sink: str, stopping: threading.Event, failed: Callable[[], None]) -> None:
        self.count = 0
        self.last = ""
        """Of what is being tried again now; empty while all is well."""
        self._sink = sink
        self._stopping = stopping
        self._failed = failed
        self._occasional = Occasional(log)

    def overcome(self, doing: str, act: Callable[[], T]) -> T:
        """What `act` returns, once it does; SinkSplitError and SinkRejectError are its own to raise.

        StoppedError: the service stops, and it has not.
        """
        for wait_s in _waits():
            try:
                result = act()
            except (SinkSplitError, SinkRejectError):
                self.last = ""
                raise
            except (Exception, SystemExit) as error:  # whatever a plugin may raise
                self.add()
                self.tell(doing, error)
            else:
                self._recover()
                return result
            if self._stopping.is_set() or self._stopping.wait(wait_s):
                raise StoppedError
        raise AssertionError  # the waits never end

    def add(self) -> None:
        """One more that somebody else tells of."""
        self.count += 1
        self._failed()

    def tell(self, doing: str, error: BaseException) -> None:
        """Say it once in a while."""
        self.last = f"{doing}: {told(error)}"
        self._occasional.warning(doing, "sink failed", sink=self._sink, doing=doing, error=_traced(error))

    def tell_damage(self, places: int) -> None:
        """Rows that can't be read any more."""
        self.add()
        self._occasional.warning("damage", "damaged rows of the journal are skipped", sink=self._sink, places=places)

    def _recover(self) -> None:
        if self.last:
            self.last = ""
            log.info("sink works again", extra=fields(sink=self._sink))


def told(error: BaseException) -> str:
    """In a few words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _traced(error: BaseException) -> str:
    """With where it was raised, for authors of plugins; cpro's own errors say enough."""
    if error.__traceback__ is None or type(error).__module__.startswith("cpro"):
        return told(error)
    return "".join(traceback.format_exception(error)).rstrip()


def _waits() -> Iterator[float]:
    wait_s = FIRST_RETRY_S
    while True:
        yield wait_s * random.uniform(0.5, 1.0)  # noqa: S311 -- only so that not everybody comes at once
        wait_s = min(wait_s * 2, LAST_RETRY_S)
