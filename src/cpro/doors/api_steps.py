"""Several commands of one request: each does its part, in turn or side by side, and all replies stand in order."""

from collections.abc import Callable, Sequence
from functools import partial

Replies = list[bytes]
"""JSON texts."""
Step = Callable[[Callable[[Replies], None]], Replies | None]
"""Does its part: the replies, or None when the callable hears them later, never before this has returned."""


class Steps:
    """Made for one request, started once."""

    def __init__(self, steps: Sequence[Step], finish: Callable[[Replies], None], *, in_parallel: bool) -> None:
        """`finish` hears all replies, unless `start` returns them."""
        self._steps = steps
        self._finish = finish
        self._in_parallel = in_parallel
        self._replies: list[Replies] = [[] for _ in steps]
        self._begun = 0
        self._under_way = 0
        self._is_starting = True

    def start(self) -> Replies | None:
        """The replies if they are all there; None: `finish` hears them."""
        self._go_on()
        self._is_starting = False
        return self._all() if self._is_done else None

    @property
    def _is_done(self) -> bool:
        return self._begun == len(self._steps) and not self._under_way

    def _go_on(self) -> None:
        while self._begun < len(self._steps) and (self._in_parallel or not self._under_way):
            place = self._begun
            self._begun += 1
            self._under_way += 1
            replies = self._steps[place](partial(self._hear, place))
            if replies is not None:
                self._take(place, replies)

    def _take(self, place: int, replies: Replies) -> None:
        self._replies[place] = replies
        self._under_way -= 1

    def _hear(self, place: int, replies: Replies) -> None:
        self._take(place, replies)
        self._go_on()
        if self._is_done and not self._is_starting:
            self._finish(self._all())

    def _all(self) -> Replies:
        return [reply for replies in self._replies for reply in replies]
