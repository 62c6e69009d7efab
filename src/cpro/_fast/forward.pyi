from collections.abc import Callable, Iterator
from typing import Any, final

from cpro._fast.carrier import Depot
from cpro._fast.counters import Recorder
from cpro._fast.exchange import Exchanges
from cpro._fast.http1 import Request

class Way:
    """Endpoints that take the same requests, in turn. To be extended by what sets `turn`; its depots and exchanges by
    what a pool and a client do (`wait`, `refuse`)."""

    turn: Iterator[tuple[Any, Depot]]
    """The next endpoint, and where its connections are. Endless."""

    def __init__(self, exchanges: Exchanges, may_repeat: bool) -> None: ...
    @property
    def exchanges(self) -> Exchanges: ...
    @property
    def may_repeat(self) -> bool: ...
    def send(self, request: Request, on_done: Callable[[Any], object]) -> None:
        """Forward; `on_done` is called exactly once, never before this returns."""

@final
class Forward:
    """The handler of one event."""

    def __init__(
        self,
        way: Way,
        count: Recorder,
        clock: Callable[[], int],
        plain: dict[bytes, Any],
        judge: Callable[[Any], tuple[int, Any]],
    ) -> None:
        """`plain` has the replies to those bodies of a 200 that need no reading, and that count as outcome 0; `judge`
        gives the outcome's place for `count`, and the reply, of everything else. `clock` is in ns."""
    def __call__(self, operation: object, request: Request, respond: Callable[[Any], None]) -> None: ...
