"""Rules and books for sessions of the gateway, scripted by a test."""

from dataclasses import dataclass, field

from cpro.doors.gateway.lanes import build_lanes
from cpro.operation import Operation, Verdict


@dataclass
class ScriptedRules:
    """Limits that refuse the kinds in `refuse` and leave those in `ask` waiting in `deciders`; knows no tokens."""

    refuse: set[str] = field(default_factory=set)
    ask: set[str] = field(default_factory=set)
    rows: list[tuple[str, int, int]] = field(default_factory=list)
    deciders: list = field(default_factory=list)
    events: list[tuple] = field(default_factory=list)
    own_methods: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.lanes, self.tentative_connect = build_lanes(self._charge, self._wait, self._record_of, {})
        self.observer = self

    def _charge(self, operation: Operation, now_ns: int, **_: object) -> Verdict | None:
        if operation.kind in self.ask:
            return None
        return Verdict.REFUSED if operation.kind in self.refuse else Verdict.ADMITTED

    def _wait(self, operation: Operation, decide, **_: object) -> None:
        self.deciders.append(decide)

    def _record_of(self, kind: str):
        return lambda operation, verdict, reply, duration_ns: self.rows.append(
            (operation.kind, reply.error, reply.disconnect)
        )

    def claim(self, token: str) -> None:
        return None

    def is_claimed(self, method: str) -> bool:
        return False

    def read_mark(self, connection: str, data: bytes) -> None:
        return None

    def take_error(self, errors: list[int], now_ns: int) -> bool:
        return True

    def on_open(self, session, connect, said) -> None:
        self.events.append(("open", session.client))

    def on_close(self, session, code, reason) -> None:
        self.events.append(("close", code))

    def on_subscribed(self, session, channel) -> None:
        self.events.append(("subscribed", channel))

    def on_unsubscribed(self, session, channel) -> None:
        self.events.append(("unsubscribed", channel))


class ScriptedTransport:
    """What one leg is given to write on."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = self.is_aborted = self.is_paused = False
        self.unread = 0

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False
