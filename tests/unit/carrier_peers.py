"""A client's parts without a loop or a socket: what the Cython half of it is given, and what it tells."""

from collections import OrderedDict

from cpro._fast.carrier import Carrier, Depot
from cpro._fast.exchange import Exchange, Exchanges
from cpro._fast.forward import Way
from cpro.http.endpoints import parse_endpoint

TIMEOUT_S = 0.8
ENDPOINT = parse_endpoint("http://app:3000/centrifugo/publish")


class Book(Exchanges):
    """The client's half, as a record of what it was told."""

    def __init__(self) -> None:
        self.now_s = 100.0
        super().__init__(lambda: self.now_s, TIMEOUT_S)
        self.watches: list[float] = []
        self.refused: list[object] = []
        self.lasts = 0
        self.bugs: list[Exception] = []

    def watch(self, deadline_s: float) -> None:
        self.watched = True
        self.watches.append(deadline_s)

    def refuse(self, on_done: object) -> None:
        self.refused.append(on_done)

    def on_last(self) -> None:
        self.lasts += 1

    def report(self, error: Exception) -> None:
        self.bugs.append(error)


class Well:
    """An origin's health."""

    failures = 0
    answers = 0

    def on_answer(self) -> None:
        self.answers += 1


class Yard(Depot):
    """The pool's half, which does nothing but take note."""

    waiting: OrderedDict[object, None]

    def __init__(self, book: Book) -> None:
        super().__init__(book, OrderedDict())
        self.health = Well()
        self.sweep_at_s = 0.0
        self.waits: list[Exchange] = []
        self.freed: list[Carrier] = []
        self.failed: list[tuple[Exchange, str, bool]] = []
        self.lost: list[Carrier] = []

    def wait(self, exchange: Exchange) -> None:
        self.waits.append(exchange)

    def on_free(self, carrier: Carrier) -> None:
        self.freed.append(carrier)

    def on_failure(self, exchange: Exchange, failure: str, was_stale: bool) -> None:
        self.failed.append((exchange, failure, was_stale))

    def on_lost(self, carrier: Carrier) -> None:
        self.lost.append(carrier)

    def park(self) -> tuple[Carrier, "Wire"]:
        """One more idle connection."""
        carrier, wire = Carrier(self, 4096, (b"accept-encoding",)), Wire()
        carrier.connection_made(wire)
        self.idle.append(carrier)
        return carrier, wire


class Wire:
    """A transport that leads nowhere; `unsent` is what the kernel did not take yet."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent = 0
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


class Road(Way):
    """A route to one endpoint of one yard."""

    def __init__(self, book: Book, yard: Yard, *, may_repeat: bool = False) -> None:
        super().__init__(book, may_repeat)
        self.turn = iter(lambda: (ENDPOINT, yard), None)
