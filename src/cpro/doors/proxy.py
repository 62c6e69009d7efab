"""The proxy door: Centrifugo's HTTP event proxies, `POST {prefix}/{event}`.

Decodes only what limits need; body and headers travel on as they came. What Centrifugo does with an answer differs by
event (an `error` on refresh logs the user out), so each event has a `Lane` with answers of its own.
"""

import hmac
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

import msgspec

from cpro import pipeline
from cpro._fast.http1 import Request
from cpro.clock import unix_seconds
from cpro.config.model import EVENTS, Proxy
from cpro.doors.claims import (
    NOTHING_ADDED,
    Added,
    Charge,
    Claim,
    Claimed,
    Dispatch,
    Record,
    Tell,
    answering,
    user_reply,
)
from cpro.doors.events import Event, Reading, read_plainly
from cpro.doors.joined import connection_of, mark_user
from cpro.doors.seal import Seal
from cpro.doors.telling import Interest, telling
from cpro.http.server import Connection
from cpro.logs import Occasional
from cpro.operation import (
    BAD_REQUEST,
    EMPTY,
    EMPTY_RESULT,
    INTERNAL_ERROR,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    TOO_MANY_REQUESTS,
    UNREADABLE,
    Operation,
    Reply,
    Verdict,
    status_reply,
)
from cpro.pipeline import Handle, Lane, Respond, never_waits

log = logging.getLogger(__name__)

STARTED_BY_CENTRIFUGO = frozenset({"refresh", "sub_refresh"})
"""Centrifugo ignores their `error` and expires the connection instead; on a bad status it asks again in 60 s."""

NOT_FOUND = status_reply(404)
METHOD_NOT_ALLOWED = status_reply(405)
UNAUTHORIZED = status_reply(401)
BAD_GATEWAY = status_reply(502)
SERVICE_UNAVAILABLE = status_reply(503)

SECRET_HEADER = b"x-cpro-secret"
REFRESHED_FOR_S = 3600

Wait = Callable[..., None]
"""`SharedGate.wait`."""
Run = Callable[[Lane, Operation, Request, Respond], Reply | None]
"""`pipeline.run`, or a `Dispatch` where plugins take some of the event."""


@dataclass(frozen=True, slots=True)
class _Entrance:
    """One event's path: its lane, and what is answered to a body that isn't an event."""

    kind: str
    run: Run
    lane: Lane
    invalid: Reply
    record: Record
    joined: Lane | None
    """The lane of what the gateway has charged, and records; None where it knows nothing of the event."""
    decode: Callable[[bytes], Event]
    is_noted: bool


class ProxyDoor:
    """Takes Centrifugo's events; a `http.server.Handler`."""

    def __init__(self, charge: Charge, recorder: Callable[[str], Record], wait: Wait = never_waits) -> None:
        """`recorder` gives the `Record` of one operation: an event's, or one that a plugin adds. `wait` is for what
        `charge` can't decide by itself."""
        self._charge = charge
        self._wait = wait
        self._recorder = cache(recorder)
        self._occasional = Occasional(log)
        self._entrances: dict[bytes, _Entrance] = {}
        self._handles: dict[str, Handle] = {}
        self._interests: tuple[Interest, ...] = ()
        self._secret = b""
        self._address_header = b""
        self._seal: Seal | None = None

    def configure(
        self,
        proxy: Proxy,
        forwards: Mapping[str, Handle],
        user_of: Callable[[Reply], str | None],
        *,
        by_address: bool,
        added: Added = NOTHING_ADDED,
        interests: Iterable[Interest] = (),
        own: Mapping[str, Handle] = {},
        seal: Seal | None = None,
        reading_of: Callable[[str], Reading] = read_plainly,
    ) -> None:
        """Put settings in force from the next request on.

        `forwards` has a handler for each event that a backend takes, `user_of` reads the user out of a connect's
        answer, `by_address` says that limits want to know the address of anonymous users, `added` is of plugins,
        `interests` are of features that want to be told of operations, `reading_of` says what they need of an event,
        `own` are RPC methods that are answered here,
        `seal` opens what a gateway has closed.
        """
        self._seal = seal
        self._secret = proxy.secret.encode()
        self._address_header = proxy.ip_header.lower().encode() if by_address else b""
        self._user_of = user_of
        self._handles = {kind: forwards.get(kind) or _without_upstream(kind, proxy, added.identify) for kind in EVENTS}
        if own:
            self._handles["rpc"] = answering(own, self._handles["rpc"])
        self._interests = tuple(interests)
        prefix = proxy.prefix.rstrip("/")
        self._entrances = {
            f"{prefix}/{kind}".encode(): self._entrance(kind, added, reading_of(kind)) for kind in EVENTS
        }

    def __call__(self, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        entrance = self._entrances.get(request.path)
        if entrance is None:
            return NOT_FOUND
        if not request.is_post:
            return METHOD_NOT_ALLOWED
        if self._secret and not hmac.compare_digest(request.header(SECRET_HEADER) or b"", self._secret):
            return UNAUTHORIZED
        try:
            event = entrance.decode(request.body)
        except UNREADABLE as error:
            return self._refuse_invalid(entrance, error)
        operation = Operation(entrance.kind, event.client, event.user, event.channel, event.method, "", now_ns)
        if self._address_header and not event.user:
            operation.address = (request.header(self._address_header) or b"").decode("latin-1")
        lane = entrance.lane
        if self._seal is not None and entrance.joined is not None and connection_of(self._seal, request) is not None:
            lane = entrance.joined
        if entrance.is_noted:
            operation.noted = event, request
        return entrance.run(lane, operation, request, connection.answer)

    def _refuse_invalid(self, entrance: _Entrance, error: Exception) -> Reply:
        entrance.record(Verdict.INVALID, 0)
        self._occasional.warning(entrance.kind, "event is not Centrifugo's", event=entrance.kind, error=str(error))
        return entrance.invalid

    def _refuse_known(
        self, entrance: _Entrance, told: tuple[Tell, ...], operation: Operation, error: Exception
    ) -> Reply:
        """The same where it is known at least whose event it is."""
        operation.kind = entrance.kind
        for tell in told:
            tell(operation, Verdict.INVALID, entrance.invalid, 0)
        return self._refuse_invalid(entrance, error)

    def _entrance(self, kind: str, added: Added, reading: Reading) -> _Entrance:
        told = self._told(kind, added)
        lane = self._lane(kind, kind, self._charge, self._handles[kind], told)
        invalid = BAD_GATEWAY if kind in STARTED_BY_CENTRIFUGO else BAD_REQUEST
        joined = None if self._seal is None or kind in STARTED_BY_CENTRIFUGO else _joined(lane, self._seal)
        plain = _Entrance(
            kind, pipeline.run, lane, invalid, self._recorder(kind), joined, reading.decode, reading.is_noted
        )
        claimed = [self._claimed(claim, plain, told) for claim in added.claims if claim.event == kind]
        return replace(plain, run=Dispatch(claimed, added.namespace_of, joined)) if claimed else plain

    def _told(self, event: str, added: Added) -> tuple[Tell, ...]:
        """Who hears of an event's operations."""
        told = [tell for interest in self._interests for tell in interest(event)]
        return (*told, added.observe) if added.observe else tuple(told)

    def _claimed(self, claim: Claim, plain: _Entrance, told: tuple[Tell, ...]) -> Claimed:
        """An event's part that a plugin takes: a lane of its own beside the plain one, for the same answers."""
        handle = claim.handler(partial(self._pass_on, plain.kind), fault_of(plain.kind))
        lane = self._lane(plain.kind, claim.name, claim.charge, handle, told)
        entrance = replace(plain, kind=claim.name, record=self._recorder(claim.name))
        # RPCs of plugins are theirs at both doors: the gateway charges and records none of them
        seal = self._seal if plain.kind != "rpc" else None
        joined = lane if seal is None else _joined(lane, seal)
        return Claimed(claim, lane, joined, partial(self._refuse_known, entrance, told))

    def _pass_on(self, kind: str, operation: Operation, request: Request, respond: Respond) -> Reply | None:
        """What would have been done without the plugin; by the settings of now, which may have been reloaded."""
        return self._handles[kind](operation, request, respond)

    def _lane(self, event: str, name: str, charge: Charge, handle: Handle, told: tuple[Tell, ...]) -> Lane:
        by_centrifugo = event in STARTED_BY_CENTRIFUGO
        return Lane(
            admit=partial(charge, own_only=True) if by_centrifugo else charge,
            admit_later=partial(self._wait, own_only=True) if by_centrifugo else self._wait,
            handle=handle,
            refusal=SERVICE_UNAVAILABLE if by_centrifugo else TOO_MANY_REQUESTS,
            record=telling(self._recorder(name), fault_of(event), told),
            always=handle.reply if isinstance(handle, _Constant) else None,
            user_of=self._user_of if event == "connect" else None,
        )


def _admit(operation: Operation, now_ns: int) -> Verdict:
    return Verdict.ADMITTED


def _forget(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
    """The gateway remembers."""


def _joined(lane: Lane, seal: Seal) -> Lane:
    """The same lane for what comes through a gateway: it only handles, and marks the user of a connect."""
    handle = lane.handle if lane.user_of is None else partial(_mark_user, seal, lane.handle)
    return Lane(_admit, handle, lane.refusal, _forget)


def _mark_user(seal: Seal, handle: Handle, operation: Operation, request: Request, respond: Respond) -> Reply | None:
    def marked(reply: Reply) -> Reply:
        connection = connection_of(seal, request)
        return reply if connection is None else mark_user(seal, connection, reply)

    reply = handle(operation, request, lambda later: respond(marked(later)))
    return None if reply is None else marked(reply)


def fault_of(kind: str) -> Reply:
    """The answer when whoever should handle the event failed."""
    return BAD_GATEWAY if kind in STARTED_BY_CENTRIFUGO else INTERNAL_ERROR


def _without_upstream(kind: str, proxy: Proxy, identify: Handle | None) -> Handle:
    """The handler of an event that no backend takes."""
    if kind == "connect":
        header = proxy.connect_user_header.lower().encode()
        otherwise = identify or _Constant(EMPTY)
        return partial(_connect_by_header, header, otherwise) if header else otherwise
    if proxy.without_upstream == "allow":
        return _extend if kind in STARTED_BY_CENTRIFUGO else _Constant(EMPTY_RESULT)
    if kind in STARTED_BY_CENTRIFUGO:
        return _Constant(BAD_GATEWAY)
    return _Constant(NOT_AVAILABLE if kind == "rpc" else PERMISSION_DENIED)


class _Constant:
    """A handler that says the same to everybody."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def __call__(self, operation: Operation, request: Request, respond: Respond) -> Reply:
        return self.reply


def _connect_by_header(
    header: bytes, otherwise: Handle, operation: Operation, request: Request, respond: Respond
) -> Reply | None:
    """A connect of the user that a trusted header names; without it plugins or Centrifugo decide."""
    user = (request.header(header) or b"").decode(errors="replace")
    return user_reply(user) if user else otherwise(operation, request, respond)


def _extend(operation: Operation, request: object, respond: Respond) -> Reply:
    return Reply(msgspec.json.encode({"result": {"expire_at": unix_seconds() + REFRESHED_FOR_S}}))
