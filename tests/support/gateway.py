"""Rules and books for sessions of the gateway, scripted by a test."""

from dataclasses import dataclass, field

from cpro.doors.gateway.lanes import build_lanes
from cpro.doors.gateway.tokens import Claim
from cpro.operation import Operation, Verdict


@dataclass
class ScriptedRules:
    """Limits that refuse the kinds in `refuse` and leave those in `ask` waiting in `deciders`; books that list it all.

    Every token is `known`'s; RPC methods that begin with `plugin:` are claimed."""

    refuse: set[str] = field(default_factory=set)
    ask: set[str] = field(default_factory=set)
    known: Claim | None = None
    errors_left: int = 1000
    charged: list[tuple[str, str]] = field(default_factory=list)
    rows: list[tuple[str, str, int, int]] = field(default_factory=list)
    deciders: list = field(default_factory=list)
    events: list[tuple] = field(default_factory=list)
    own_methods: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.lanes, self.tentative_connect = build_lanes(self._charge, self._wait, self._record_of, {})
        self.observer = self

    def _charge(self, operation: Operation, now_ns: int, **_: object) -> Verdict | None:
        self.charged.append((operation.kind, operation.user))
        if operation.kind in self.ask:
            return None
        return Verdict.REFUSED if operation.kind in self.refuse else Verdict.ADMITTED

    def _wait(self, operation: Operation, decide, **_: object) -> None:
        self.deciders.append(decide)

    def _record_of(self, kind: str):
        return lambda operation, verdict, reply, duration_ns: self.rows.append(
            (operation.kind, operation.user, reply.error, reply.disconnect)
        )

    def claim(self, token: str) -> Claim | None:
        return self.known

    def is_claimed(self, method: str) -> bool:
        return method.startswith("plugin:")

    def read_mark(self, connection: str, data: bytes) -> None:
        return None

    def take_error(self, errors: list[int], now_ns: int) -> bool:
        self.errors_left -= 1
        return self.errors_left >= 0

    def on_open(self, session, connect, said) -> None:
        self.events.append(("open", session.user))

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
