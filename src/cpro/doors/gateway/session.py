"""One client's session, whatever transport carries it: who it is, what of its commands may pass, what is owed to it.

    NEW ─ connect ─► CONNECTING ─ success, admitted ─► OPEN
     ▲                   │ Centrifugo's error             │
     └───────────────────┘        refused by us ─► REFUSED ◄─ too many errors

Before a successful connect Centrifugo carries out nothing, so in NEW everything passes untouched. In CONNECTING
whatever follows waits, since nobody knows yet whom to charge. While limits ask their store, what follows waits, too:
the order of commands is the client's. What waits is bounded: the wire stops reading.
"""

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Final, Protocol

from cpro import pipeline
from cpro._fast.command import Command
from cpro._fast.commands import BAD_REQUEST as IS_BAD_REQUEST
from cpro._fast.commands import build_payload, malformed, parse_commands, without_dictionary
from cpro._fast.replies import Reply as Said
from cpro.doors.gateway.answers import build_answer
from cpro.doors.gateway.pages import Pages
from cpro.doors.gateway.tokens import Claim
from cpro.operation import BAD_REQUEST, Operation, Reply
from cpro.pipeline import Lane, Respond

WAITING_LIMIT_BYTES: Final = 64 * 1024
PENDING_LIMIT: Final = 4096
"""Commands a client may have under way before the oldest is given up (for the books only)."""
TOO_MANY_ERRORS: Final = (3509, "too many errors")
INTERNAL_ERROR: Final = 100
"""Nobody is to blame for it but us."""

UNCOUNTED: Final = frozenset({"ping", "pong", "none", "send"})
"""What Centrifugo answers by itself, mostly by disconnecting."""


POLLING: Final = frozenset({"track", "untrack"})
"""What a sub_refresh may be, of a subscription to a shared poll only."""
SHARED_POLL: Final = 4
"""Type of such a subscription."""


class Wire(Protocol):
    """The two legs of a session, as the session sees them."""

    def forward(self, payload: bytes) -> None:
        """Send a message to Centrifugo."""

    def answer(self, reply: bytes) -> None:
        """Send a reply of our own to the client, between whole messages of Centrifugo's."""

    def on_let_in(self, said: Said, data: bytes | None) -> None:
        """Centrifugo accepts the connect by `said`, which the client may get to see; with this `data`, if not None."""

    def let_through(self) -> None:
        """The connect is admitted: let Centrifugo's reply to it, and all that follows, pass."""

    def refuse_connect(self, reply: bytes) -> None:
        """Send `reply` instead of Centrifugo's and close both legs after a short grace."""

    def disconnect(self, code: int, reason: str) -> None:
        """Close both legs, the client's with this code."""

    def hold(self) -> None:
        """Read no more of the client, until `go_on`."""

    def go_on(self) -> None: ...


class Established(Reply, frozen=True, gc=False, kw_only=True):
    """The answer to a connect that names its user: what Centrifugo lets the client in by."""

    said: Said
    user: str = ""


class Observer(Protocol):
    """Told what a session becomes."""

    def on_open(self, session: "Session", connect: Command, said: Said) -> None: ...

    def on_close(self, session: "Session", code: int, reason: str) -> None:
        """Of every session, also of one that never opened."""

    def on_subscribed(self, session: "Session", channel: str) -> None: ...

    def on_unsubscribed(self, session: "Session", channel: str) -> None: ...


class Rules(Protocol):
    """What holds for all sessions now; a reload replaces it."""

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """By kind of operation."""

    @property
    def tentative_connect(self) -> Lane:
        """Charges the user that the reply to a connect establishes."""

    @property
    def own_methods(self) -> frozenset[str]:
        """RPC methods that have a lane of their own, `rpc <method>`."""

    @property
    def is_claimed(self) -> Callable[[str], bool]:
        """Whether an RPC method is a plugin's, which the proxy door charges."""

    @property
    def observer(self) -> Observer: ...

    def read_mark(self, connection: str, data: bytes) -> tuple[str, bytes] | None:
        """`joined.read_mark`: whom the proxy door let in, and the data of its answer."""

    def claim(self, token: str) -> Claim | None: ...

    @property
    def take_error(self) -> Callable[[list[int], int], bool]:
        """`ErrorLimit.take`: charges an error to a connection; False when it has made too many."""


class About:
    """What only the beginning of a session tells of it."""

    __slots__ = ("headers", "made_s", "name", "transport", "version")

    def __init__(self, transport: str, headers: dict[str, list[str]]) -> None:
        self.transport = transport
        self.headers = headers
        self.name = self.version = ""
        self.made_s = 0
        """When it opened, in Unix seconds."""


class Asked:
    """A command on its way: what a lane's handler gets as its request."""

    __slots__ = ("command", "payload", "session")

    def __init__(self, session: "Session", command: Command, payload: bytes) -> None:
        self.session = session
        self.command = command
        self.payload = payload


Queued = tuple[bytes, list[Command], int]
"""A message that waits, its commands, and the first of them that has not been taken."""


class State(Enum):
    NEW = 0
    CONNECTING = 1
    OPEN = 2
    REFUSED = 3


_NEW, _CONNECTING, _OPEN, _REFUSED = State  # looking up an enum's member shows in a command's cost

PASSED = Reply(b"")
"""Centrifugo has answered, and the client has it already."""


class Session:
    """Belongs to its wire, which feeds it whole messages of the client and what Centrifugo says."""

    def __init__(
        self,
        wire: Wire,
        rules: Callable[[], Rules],
        clock: Callable[[], int],
        *,
        connection: str,
        about: About,
        protobuf: bool,
        address: str,
        header_user: str = "",
    ) -> None:
        """`connection` is what the gateway calls it, `about` is for its observer, `clock` is `clock.boot_ns`, `address`
        the client's, `header_user` whom a trusted header names."""
        self.state = _NEW
        self.connection = connection
        self.about = about
        self.client = ""
        self.user = ""
        self.address = address
        self.connect: Command | None = None
        """The command it began with, until it is open or refused."""
        self._claim: Claim | None = None
        self._wire = wire
        self._rules = rules
        self._clock = clock
        self.protobuf = protobuf
        self._header_user = header_user
        self._establish: Respond | None = None
        self._opening: Operation | None = None  # the connect's, until Centrifugo lets the client in
        self._pending: dict[int, tuple[Respond | None, Command]] = {}
        self._admitted: list[Command] = []
        self._is_taking = False
        self._is_asking = False  # limits ask their store about the command at hand
        self._queue: deque[Queued] | None = None  # there while something waits: an empty one is not small
        self._queued_bytes = 0
        self._pages = Pages()
        self._errors: list[int] = []
        self._polled: frozenset[str] = frozenset()  # channels of shared polls
        self.latency_ns = 0
        """How long the client last took to answer a ping of Centrifugo's; 0: it has answered none yet."""
        self._pinged_ns = 0  # 0: nothing to answer, or its answer has waited here

    # -- what the client sends

    def on_message(self, payload: bytes) -> None:
        """A whole message of the client."""
        if self.state is _REFUSED:
            return
        commands = parse_commands(payload, self.protobuf)
        if self._is_asking or self.state is _CONNECTING:
            self._pinged_ns = 0
            self._waiting().append((payload, commands, 0))
            before, self._queued_bytes = self._queued_bytes, self._queued_bytes + len(payload)
            if before <= WAITING_LIMIT_BYTES < self._queued_bytes:
                self._wire.hold()
            return
        self._take(payload, commands, 0)

    def _take(self, payload: bytes, commands: list[Command], start: int) -> None:
        """Admit commands one by one, and forward as one message those that may pass."""
        rules, now_ns = self._rules(), self._clock()
        self._is_taking = True
        for place in range(start, len(commands)):
            self._decide(rules, commands[place], payload, now_ns)
            if self._is_asking or self.state is _CONNECTING or self.state is _REFUSED:
                if place + 1 < len(commands):
                    self._waiting().appendleft((payload, commands, place + 1))
                break
        self._is_taking = False
        self._flush(payload)

    def _flush(self, payload: bytes) -> None:
        if self._admitted:
            admitted, self._admitted = self._admitted, []
            self._wire.forward(build_payload(payload, admitted, self.protobuf))

    def _waiting(self) -> deque[Queued]:
        if self._queue is None:
            self._queue = deque()
        return self._queue

    def _proceed(self) -> None:
        """Take what has waited, as far as that goes."""
        while (queue := self._queue) and not self._is_asking and self.state is not _CONNECTING:
            payload, commands, start = queue.popleft()
            if not queue:
                self._queue = None
            before, self._queued_bytes = self._queued_bytes, self._queued_bytes - (0 if start else len(payload))
            if before > WAITING_LIMIT_BYTES >= self._queued_bytes:
                self._wire.go_on()
            if self.state is _REFUSED:
                continue
            self._take(payload, commands, start)

    def _decide(self, rules: Rules, command: Command, payload: bytes, now_ns: int) -> None:
        kind = self._kind(command)
        if command.fault:
            self._on_fault(command, payload)
        elif kind == "connect" and self.state is _NEW:
            self._connect(rules, command, payload, now_ns)
        elif self.state is not _OPEN or kind in UNCOUNTED:
            if kind == "pong":
                self.on_ponged(now_ns)
            self._admitted.append(command)
        elif (lane := self._lane(rules, kind, command)) is None:
            self._expect(command, None)
            self._admitted.append(command)
        else:
            self._run(lane, kind, command, payload, now_ns)

    def _on_fault(self, command: Command, payload: bytes) -> None:
        if command.fault == IS_BAD_REQUEST:
            self._answer(command.id, BAD_REQUEST)
        else:
            self._flush(payload)
            self._wire.forward(malformed(self.protobuf))

    def _kind(self, command: Command) -> str:
        """What a command is: Centrifugo goes by the subscription, not by what a sub_refresh says of itself."""
        kind = command.kind
        return "sub_refresh" if kind in POLLING and command.channel not in self._polled else kind

    def _lane(self, rules: Rules, kind: str, command: Command) -> Lane | None:
        """None: it passes uncharged."""
        if kind == "rpc":
            method = command.method
            if method in rules.own_methods:
                return rules.lanes[f"rpc {method}"]
            return None if rules.is_claimed(method) else rules.lanes[kind]
        if kind == "subscribe" and command.type and self._pages.is_continued(command):
            return None
        return rules.lanes[kind]

    def _run(self, lane: Lane, kind: str, command: Command, payload: bytes, now_ns: int) -> None:
        operation = Operation(kind, self.client, self.user, command.channel, command.method, self.address, now_ns)
        operation.noted = asked = Asked(self, command, payload)
        self._is_asking = True
        reply = pipeline.run(lane, operation, asked, partial(self._on_answer, command.id))
        if reply is not None:
            self._is_asking = False
            self._answer(command.id, reply)

    def pass_on(self, asked: Asked, respond: Respond) -> None:
        """A lane's handler: it is admitted; send it to Centrifugo, whose reply goes to `respond`."""
        self._is_asking = False
        self._expect(asked.command, respond)
        self._admitted.append(asked.command)
        if not self._is_taking:
            self._flush(asked.payload)
            self._proceed()

    def _on_answer(self, command_id: int, reply: Reply) -> None:
        """What became of a command that was not answered at once."""
        if not reply.body:  # Centrifugo's own, which the client has already
            return
        self._answer(command_id, reply)
        if self._is_asking and not self._is_taking:
            self._is_asking = False
            self._proceed()

    def _answer(self, command_id: int, reply: Reply) -> None:
        self._wire.answer(build_answer(command_id, reply, protobuf=self.protobuf))
        if reply.error:
            self._on_error(reply.error)

    # -- the connect

    def _connect(self, rules: Rules, command: Command, payload: bytes, now_ns: int) -> None:
        self.state, self.connect = _CONNECTING, command
        self._claim = claim = rules.claim(command.token) if command.token else None
        is_known = claim is not None and claim.is_verified
        user = claim.user if claim is not None and is_known else ""
        self._opening = operation = Operation("connect", "", user, "", "", self.address, now_ns)
        lane = rules.lanes["connect"] if is_known else rules.tentative_connect
        reply = pipeline.run(lane, operation, Asked(self, command, payload), self._on_established)
        if reply is not None:
            self._on_established(reply)

    def send_connect(self, asked: Asked, respond: Respond) -> None:
        """The handler of connects: `respond` hears what Centrifugo says to it."""
        self._establish = respond
        command = asked.command
        if command.wants_dictionary:  # its frames would be opaque to us
            self._wire.forward(without_dictionary(command))
        else:
            self._wire.forward(build_payload(asked.payload, [command], self.protobuf))

    def _on_connect_said(self, establish: Respond, said: Said) -> None:
        self._establish = None
        if said.code:
            establish(Reply(b"", error=said.code))
            return
        opening, self._opening = self._opening, None
        assert opening is not None, "let in once"  # noqa: S101
        self.client = opening.client = said.client
        marked = self._rules().read_mark(self.connection, said.data)
        self.user = self._user_of(said, marked[0] if marked else "")
        self._wire.on_let_in(said, marked[1] if marked else None)
        establish(Established(b"", user=self.user, said=said))

    def _user_of(self, said: Said, marked_user: str) -> str:
        """Whom Centrifugo has let in: it has verified the token, or asked the proxy door, or read the header."""
        if self._claim is not None:
            return self._claim.user
        return marked_user or self._header_user or _personal(said.subs)

    def _on_established(self, reply: Reply) -> None:
        """The end of a connect: refused by us (it has a body), refused by Centrifugo, or good."""
        command, self.connect = self.connect, None
        assert command is not None, "a connect ends once"  # noqa: S101
        if self.state is _REFUSED:  # it was closed meanwhile
            return
        if reply.body:
            self.state = _REFUSED
            self._queue = None
            self._wire.refuse_connect(build_answer(command.id, reply, protobuf=self.protobuf))
            return
        self.state = _OPEN if isinstance(reply, Established) else _NEW
        self._wire.let_through()
        if isinstance(reply, Established):
            self._rules().observer.on_open(self, command, reply.said)
        if not self._is_taking:
            self._proceed()

    # -- what Centrifugo says

    def on_said(self, said: Said) -> None:
        """A reply or push of Centrifugo's, in order."""
        if self.connect is not None and said.id == self.connect.id and self._establish is not None:
            self._on_connect_said(self._establish, said)
        elif said.id:
            self._on_reply(said)
        elif said.kind == "ping":
            self.on_pinged()
        elif said.kind == "push_unsubscribe":
            self._rules().observer.on_unsubscribed(self, said.channel)

    def on_pinged(self) -> None:
        """The client has been sent a ping."""
        self._pinged_ns = self._clock()

    def on_ponged(self, now_ns: int) -> None:
        """It has answered."""
        if self._pinged_ns:
            self.latency_ns, self._pinged_ns = now_ns - self._pinged_ns, 0

    def _on_reply(self, said: Said) -> None:
        respond, command = self._pending.pop(said.id, (None, None))
        if command is not None and not said.code:
            self._note(command, said)
        if respond is not None:
            respond(Reply(b"", error=said.code) if said.code else PASSED)
        if said.code:
            self._on_error(said.code)

    def _note(self, command: Command, said: Said) -> None:
        """Keep what a success changes."""
        if command.kind == "subscribe":
            self._on_subscribed(command, said)
        elif command.kind == "unsubscribe":
            self._polled -= {command.channel}
            self._rules().observer.on_unsubscribed(self, command.channel)

    def _on_subscribed(self, command: Command, said: Said) -> None:
        if command.type == SHARED_POLL:
            self._polled |= {command.channel}
        elif command.type:
            self._pages.on_reply(command.channel, said)
        if not said.phase and not said.cursor:  # the last page of a map's, or anything else's only one
            self._rules().observer.on_subscribed(self, command.channel)

    def _expect(self, command: Command, respond: Respond | None) -> None:
        if not command.id:
            return
        if len(self._pending) >= PENDING_LIMIT or command.id in self._pending:
            oldest = command.id if command.id in self._pending else next(iter(self._pending))
            given_up, _ = self._pending.pop(oldest)
            if given_up is not None:
                given_up(PASSED)
        self._pending[command.id] = (respond, command)

    # -- errors, and the end

    def _on_error(self, code: int) -> None:
        if code == INTERNAL_ERROR or self.state is not _OPEN:
            return
        if not self._rules().take_error(self._errors, self._clock()):
            self.state = _REFUSED
            self._wire.disconnect(*TOO_MANY_ERRORS)

    def on_closed(self, code: int, reason: str) -> None:
        """Both legs are closing: what is still owed will not come."""
        self.state = _REFUSED
        gone = Reply(b"", disconnect=code)
        establish, self._establish = self._establish, None
        if establish is not None:
            establish(gone)
        pending, self._pending = self._pending, {}
        for respond, _ in pending.values():
            if respond is not None:
                respond(gone)
        self._queue = None
        self._rules().observer.on_close(self, code, reason)


def _personal(channels: list[str]) -> str:
    """The user whose personal channel is among these; a list of several users is nobody's own."""
    users = [channel.partition("#")[2] for channel in channels if "#" in channel]
    return users[0] if len(users) == 1 and "," not in users[0] else ""
