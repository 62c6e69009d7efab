"""Events: the proxy door answers every body with a Reply, and charges whom the body names."""

import json
from types import SimpleNamespace

from cpro._fast.hashing import identity
from cpro._fast.http1 import Request, RequestParser
from cpro.config.model import EVENTS, Proxy
from cpro.doors.proxy import BAD_GATEWAY, SERVICE_UNAVAILABLE, STARTED_BY_CENTRIFUGO, ProxyDoor
from cpro.operation import BAD_REQUEST, TOO_MANY_REQUESTS, Operation, Reply, Verdict

FIELDS = ("client", "user", "channel", "method")
REFUSES, ALLOWS = 8, 16
"""Flags behind the number of the event: limits refuse; `without_upstream: allow`."""


class Limits:
    """In the place of `Gate.charge`."""

    def __init__(self) -> None:
        self.verdict = Verdict.ADMITTED
        self.charged: list[Operation] = []

    def __call__(self, operation: Operation, now_ns: int, own_only: bool = False) -> Verdict:
        identity(operation.kind, operation.client, operation.user, operation.channel, operation.method)
        self.charged.append(operation)
        return self.verdict


class Records:
    """In the place of the metrics: the verdicts that were recorded."""

    def __init__(self) -> None:
        self.seen: list[Verdict] = []

    def __call__(self, verdict: Verdict, duration_ns: int) -> None:
        self.seen.append(verdict)


limits, records = Limits(), Records()


def never(reply: Reply) -> None:
    raise AssertionError("answered twice")


CONNECTION = SimpleNamespace(answer=never)


def build_door(without_upstream: str) -> ProxyDoor:
    door = ProxyDoor(limits, lambda event: records)
    door.configure(Proxy(without_upstream=without_upstream), {}, lambda reply: "42", by_address=True)
    return door


DOORS = {False: build_door("deny"), True: build_door("allow")}


def run(data: bytes) -> None:
    flags, body = (data[0] if data else 0), data[1:]
    event, refuses = EVENTS[flags & 7], bool(flags & REFUSES)
    limits.verdict = Verdict.REFUSED if refuses else Verdict.ADMITTED
    limits.charged.clear()
    records.seen.clear()
    reply = DOORS[bool(flags & ALLOWS)](prepare(event, body), CONNECTION, 1)
    assert type(reply) is Reply
    assert len(records.seen) == 1
    by_centrifugo = event in STARTED_BY_CENTRIFUGO
    if records.seen == [Verdict.INVALID]:
        assert reply is (BAD_GATEWAY if by_centrifugo else BAD_REQUEST)
        assert not limits.charged
        return
    (operation,) = limits.charged
    assert operation.kind == event
    assert refuses == (reply is (SERVICE_UNAVAILABLE if by_centrifugo else TOO_MANY_REQUESTS))
    compare(operation, body)


def prepare(event: str, body: bytes) -> Request:
    parser = RequestParser(65536, 1 << 20)
    parser.feed(b"POST /centrifugo/%b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (event.encode(), len(body)))
    parser.feed(body)
    return parser.next_request()


def compare(operation: Operation, body: bytes) -> None:
    """With the reading of Python's own decoder, where it has one."""
    try:
        event = json.loads(body.decode(errors="replace"))
    except (ValueError, RecursionError):
        return
    expected = {field: event.get(field, "") for field in FIELDS}
    if operation.kind == "connect":
        expected["user"] = "42"  # named by the answer
    assert {field: getattr(operation, field) for field in FIELDS} == expected
