"""The application backend as a handler: forwards an event's bytes, and turns what comes back into a Reply."""

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from cpro._fast.counters import Recorder
from cpro._fast.forward import Forward
from cpro._fast.http1 import Response
from cpro.clock import boot_ns
from cpro.config.model import EVENTS, Upstream
from cpro.doors.answers import PLAIN, read_answer, read_connect_answer
from cpro.doors.proxy import SECRET_HEADER, fault_of
from cpro.http.client import Failure, HttpClient
from cpro.operation import Reply
from cpro.pipeline import Handle

DROPPED_HEADERS = (SECRET_HEADER, b"accept-encoding")
"""Not for the backend: our secret, and the offer of a compressed answer (we have to read it)."""

REPEATABLE = frozenset({"connect", "refresh", "subscribe", "sub_refresh"})
"""Events that may reach the backend twice when a reused connection dies; a publish or an RPC never may."""

OUTCOMES = ("ok", "refused", "timed_out", "reset", "broken", "closed", "status", "not_json")
"""What becomes of a request to the backend: an answer Centrifugo can read, a `Failure`, or another kind of answer."""
_PLACES = {outcome: place for place, outcome in enumerate(OUTCOMES)}


def urls_of(upstream: Upstream, event: str) -> tuple[str, ...]:
    """Where an event goes: its override, or every endpoint with the event's name appended; empty for nowhere."""
    if event in upstream.overrides:
        return (upstream.overrides[event],)
    endpoints = upstream.endpoints or ((upstream.endpoint,) if upstream.endpoint else ())
    return tuple(f"{endpoint.rstrip('/')}/{event}" for endpoint in endpoints)


def build_forwards(upstream: Upstream, client: HttpClient, counter: Callable[[str], Recorder]) -> Mapping[str, Handle]:
    """A handler for each event that has somewhere to go; `counter` gives what counts one event's requests, by their
    outcome's place in `OUTCOMES`, with their duration."""
    forwards: dict[str, Handle] = {}
    for event in EVENTS:
        urls = urls_of(upstream, event)
        if urls:
            route = client.route(urls, may_repeat=event in REPEATABLE)
            is_connect = event == "connect"
            judge = partial(_judge, fault_of(event), read_connect_answer if is_connect else read_answer)
            forwards[event] = Forward(route, counter(event), boot_ns, {} if is_connect else PLAIN, judge)
    return forwards


def _judge(fault: Reply, read: Callable[[bytes], Reply], outcome: Response | Failure) -> tuple[int, Reply]:
    """What becomes of a request, as its place in `OUTCOMES`; and the reply."""
    if isinstance(outcome, Failure):
        return _PLACES[outcome.value], fault
    if outcome.status != 200:
        return _PLACES["status"], fault
    try:
        return _PLACES["ok"], read(outcome.body)
    except msgspec.DecodeError:
        return _PLACES["not_json"], fault
