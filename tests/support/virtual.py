"""An event loop in which no time passes: it stands still while something can be done, and jumps to the next timer else.

Deadlines in it are exact on any machine, however slow or busy. Only for what talks to nobody outside.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Jumping(selectors.DefaultSelector):
    """Does not wait for as long as it is told: that time has passed."""

    gone_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits, and nothing will ever happen"
            self.gone_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.gone_s


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run` in such a loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario)
