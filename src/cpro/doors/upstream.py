"""The application backend as a handler: forwards an event's bytes, and turns what comes back into a Reply."""

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from cpro._fast.http1 import Request, Response
from cpro.clock import boot_ns
from cpro.config.model import EVENTS, Upstream
from cpro.doors.answers import read_answer, read_connect_answer
from cpro.doors.proxy import SECRET_HEADER, fault_of
from cpro.http.client import Failure, HttpClient, Route
from cpro.operation import Operation
from cpro.pipeline import Handle, Respond

DROPPED_HEADERS = (SECRET_HEADER, b"accept-encoding")
"""Not for the backend: our secret, and the offer of a compressed answer (we have to read it)."""

REPEATABLE = frozenset({"connect", "refresh", "subscribe", "sub_refresh"})
"""Events that may reach the backend twice when a reused connection dies; a publish or an RPC never may."""

OUTCOMES = ("ok", "refused", "timed_out", "reset", "broken", "closed", "status", "not_json")
"""What becomes of a request to the backend: an answer Centrifugo can read, a `Failure`, or another kind of answer."""
_PLACES = {outcome: place for place, outcome in enumerate(OUTCOMES)}

Count = Callable[[int, int], None]
"""Counts one request to the backend: its outcome's place in `OUTCOMES`, and its duration in ns."""


def urls_of(upstream: Upstream, event: str) -> tuple[str, ...]:
    """Where an event goes: its override, or every endpoint with the event's name appended; empty for nowhere."""
    if event in upstream.overrides:
        return (upstream.overrides[event],)
    endpoints = upstream.endpoints or ((upstream.endpoint,) if upstream.endpoint else ())
    return tuple(f"{endpoint.rstrip('/')}/{event}" for endpoint in endpoints)


def build_forwards(upstream: Upstream, client: HttpClient, counter: Callable[[str], Count]) -> Mapping[str, Handle]:
    """A handler for each event that has somewhere to go; `counter` gives the `Count` of one event."""
    forwards: dict[str, Handle] = {}
    for event in EVENTS:
        urls = urls_of(upstream, event)
        if urls:
            route = client.route(urls, may_repeat=event in REPEATABLE)
            forwards[event] = _Forward(event, client, route, counter(event))
    return forwards


class _Forward:
    """The handler of one event."""

    def __init__(self, event: str, client: HttpClient, route: Route, count: Count) -> None:
        self._client = client
        self._route = route
        self._count = count
        self._fault = fault_of(event)
        self._read = read_connect_answer if event == "connect" else read_answer

    def __call__(self, operation: Operation, request: Request, respond: Respond) -> None:
        self._client.send(self._route, request, partial(self._on_done, respond, boot_ns()))

    def _on_done(self, respond: Respond, sent_ns: int, outcome: Response | Failure) -> None:
        reply = self._fault
        if isinstance(outcome, Failure):
            label = outcome.value
        elif outcome.status != 200:
            label = "status"
        else:
            try:
                reply, label = self._read(outcome.body), "ok"
            except msgspec.DecodeError:
                label = "not_json"
        self._count(_PLACES[label], boot_ns() - sent_ns)
        respond(reply)
