"""The application backend as a handler: forwards an event's bytes, and turns what comes back into a Reply."""

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from cpro._fast.http1 import Request, Response
from cpro.clock import boot_ns
from cpro.config.model import Upstream
from cpro.doors.answers import read_answer, read_connect_answer
from cpro.doors.proxy import EVENTS, SECRET_HEADER, fault_of
from cpro.http.client import Failure, HttpClient, Route
from cpro.operation import Operation, Reply
from cpro.pipeline import Handle, Respond

DROPPED_HEADERS = (SECRET_HEADER, b"accept-encoding")
"""Not for the backend: our secret, and the offer of a compressed answer (we have to read it)."""

REPEATABLE = frozenset({"connect", "refresh", "subscribe", "sub_refresh"})
"""Events that may reach the backend twice when a reused connection dies; a publish or an RPC never may."""

Count = Callable[[str, int], None]
"""Counts one request to the backend: outcome label (see `metrics.UPSTREAM_OUTCOMES`) and duration in ns."""


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
        reply, label = self._understand(outcome)
        self._count(label, boot_ns() - sent_ns)
        respond(reply)

    def _understand(self, outcome: Response | Failure) -> tuple[Reply, str]:
        if isinstance(outcome, Failure):
            return self._fault, outcome.name.lower()
        if outcome.status != 200:
            return self._fault, "status"
        try:
            return self._read(outcome.body), "ok"
        except msgspec.DecodeError:
            return self._fault, "not_json"
