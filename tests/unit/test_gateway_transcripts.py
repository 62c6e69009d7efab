"""Recorded sessions of SDKs with a real Centrifugo, played through the tap in pieces of every size.

However the bytes of both sides are cut, the client gets Centrifugo's as they were, Centrifugo gets the client's
commands, and what is refused is refused between whole messages.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from centrifuge.protocol.client_pb2 import Reply as ProtobufReply
from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.commands import parse_commands
from cpro._fast.wsframe import BINARY, CLOSE, TEXT, ClientFrames
from cpro._fast.wsscan import ServerScan
from cpro.doors.gateway.session import About, Session
from cpro.doors.gateway.tokens import Claim
from cpro.doors.gateway.websocket import WebSocketTap
from tests.support.gateway import ScriptedRules, ScriptedTransport
from tests.support.transcripts import Recorded, all_recorded, raw, split

RECORDED = all_recorded()
HEAD = b"GET / HTTP/1.1\r\n\r\n"


class Timer:
    def cancel(self) -> None: ...


class Gateway:
    """One tap, its owner, and limits that refuse some kinds of operations."""

    max_message_bytes = 65536
    max_server_message_bytes = 1 << 26

    def __init__(self, recorded: Recorded, refuse: Iterable[str] = ()) -> None:
        self.rules = ScriptedRules(refuse=set(refuse), known=Claim("ann", is_verified=False))
        self.faults: list[str] = []
        self.client, self.far = ScriptedTransport(), ScriptedTransport()
        self.tap = WebSocketTap(self, self.client, HEAD, protobuf=recorded.is_protobuf)
        self.tap.session = Session(
            self.tap,
            lambda: self.rules,
            lambda: 0,
            connection="g",
            about=About("websocket", {}),
            protobuf=recorded.is_protobuf,
            address="192.0.2.1",
        )
        self._response = recorded.response + b"\r\n\r\n"
        self.tap.far.connection_made(self.far)
        self.tap.far.data_received(self._response)

    def feed(self, side: str, data: bytes) -> None:
        (self.tap if side == "client" else self.tap.far).data_received(data)

    def got(self) -> bytes:
        """What the client got after its upgrade."""
        assert self.client.written.startswith(self._response)
        return self.client.written[len(self._response) :]

    def passed(self) -> list[tuple[int, bytes]]:
        """The messages and control frames that Centrifugo got."""
        assert self.far.written.startswith(HEAD)
        return [(one.opcode, one.payload) for one in ClientFrames(65536).feed(self.far.written[len(HEAD) :])]

    def call_later(self, delay_s: float, callback: object) -> Timer:
        return Timer()

    def on_tap_closed(self, tap: WebSocketTap) -> None: ...

    def report(self, what: str) -> None:
        self.faults.append(what)


def commands(payloads: list[bytes], recorded: Recorded) -> list[bytes]:
    return split(payloads, is_protobuf=recorded.is_protobuf)


def check_untouched(gateway: Gateway, recorded: Recorded) -> None:
    assert not gateway.faults
    assert gateway.got() == b"".join(raw(who, frames) for who, frames in recorded.groups() if who == "server")
    passed = gateway.passed()
    messages = [payload for opcode, payload in passed if opcode in (TEXT, BINARY)]
    assert commands(messages, recorded) == commands(recorded.said("client"), recorded)
    said = [(opcode, payload) for who, opcode, payload in recorded.frames if who == "client"]
    assert passed[-1] == said[-1], "its close frame, too"
    kinds = [one.kind for payload in recorded.said("client") for one in parse_commands(payload, recorded.is_protobuf)]
    assert [kind for kind, _ in gateway.rules.charged] == kinds


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 10**6])
@pytest.mark.parametrize("name", RECORDED)
def test_in_pieces_of_any_size_all_passes_as_it_was(name: str, size: int):
    recorded = RECORDED[name]
    gateway = Gateway(recorded)
    for side, frames in recorded.groups():
        data = raw(side, frames)
        for start in range(0, len(data), size):
            gateway.feed(side, data[start : start + size])
    check_untouched(gateway, recorded)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        yield data[start:end]


PLACES = st.lists(st.integers(0, 1 << 16), max_size=6)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(RECORDED)), st.data())
def test_cut_anywhere_with_the_client_ahead_of_what_it_hears_all_passes_as_it_was(name: str, data: st.DataObject):
    recorded = RECORDED[name]
    gateway = Gateway(recorded)
    play(gateway, recorded.groups(), data)
    check_untouched(gateway, recorded)


@pytest.mark.parametrize("name", [name for name in RECORDED if name.endswith("2")])
def test_what_comes_together_with_the_reply_to_the_connect_keeps_its_order(name: str):
    recorded = RECORDED[name]
    (_, closing), *rest = reversed(recorded.groups())
    said = b"".join(raw(side, frames) for side, frames in reversed(rest) if side == "client")
    heard = b"".join(raw(side, frames) for side, frames in reversed(rest) if side == "server")
    for end in range(len(heard)):
        gateway = Gateway(recorded)
        gateway.feed("client", said)
        gateway.feed("server", heard[:end])
        gateway.feed("server", heard[end:])
        gateway.feed("client", raw("client", closing))
        check_untouched(gateway, recorded)


def play(gateway: Gateway, groups: list, data: st.DataObject) -> None:
    """Feed everything in pieces; the end of what the server says may come after what the client says next."""
    late = b""
    for side, frames in groups:
        whole = raw(side, frames)
        is_last = any(opcode == CLOSE for opcode, _ in frames)  # the client's answers it
        if side == "server" and not is_last:
            whole = late + whole
            end = data.draw(st.integers(0, len(whole)), "of the server's before the client goes on")
            whole, late = whole[:end], whole[end:]
        elif side == "server":
            whole, late = late + whole, b""
        for piece in pieces(whole, data.draw(PLACES, f"cuts of the {side}'s")):
            gateway.feed(side, piece)
    if late:
        gateway.feed("server", late)


# -- with limits that refuse

REFUSABLE = ["subscribe", "publish", "history", "presence", "presence_stats", "rpc", "refresh"]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(RECORDED)), st.sets(st.sampled_from(REFUSABLE), min_size=1), st.data())
def test_refusals_stand_between_whole_messages_wherever_those_are_cut(name: str, refuse: set[str], data: st.DataObject):
    recorded = RECORDED[name]
    protobuf = recorded.is_protobuf
    said = [one for payload in recorded.said("client") for one in parse_commands(payload, protobuf)]
    refused = {one.id for one in said if one.kind in refuse}
    groups = [
        (side, without(frames, refused, protobuf) if side == "server" else frames) for side, frames in recorded.groups()
    ]
    gateway = Gateway(recorded, refuse)
    play(gateway, groups, data)

    heard = received(gateway, protobuf)
    errors = [reply_id(one, protobuf) for one in heard if is_refusal(one, protobuf)]
    assert sorted(errors) == sorted(refused)
    others = [one for one in heard if not is_refusal(one, protobuf)]
    frames = [frame for side, group in groups if side == "server" for frame in group]
    assert others == split([payload for opcode, payload in frames if opcode != CLOSE], is_protobuf=protobuf)
    passed = [payload for opcode, payload in gateway.passed() if opcode in (TEXT, BINARY)]
    found = [one.id for payload in passed for one in parse_commands(payload, protobuf)]
    assert found == [one.id for one in said if one.kind not in refuse]


def without(frames: list[tuple[int, bytes]], ids: set[int], protobuf: bool) -> list[tuple[int, bytes]]:
    """What Centrifugo says where it has not been asked these."""
    left = []
    for opcode, payload in frames:
        if opcode == CLOSE:
            left.append((opcode, payload))
            continue
        kept = [one for one in split([payload], is_protobuf=protobuf) if reply_id(one, protobuf) not in ids]
        if kept:
            left.append((opcode, (b"" if protobuf else b"\n").join(kept)))
    return left


def received(gateway: Gateway, protobuf: bool) -> list[bytes]:
    """The replies and pushes that the client reads."""
    scan = ServerScan(protobuf, 1 << 26, holds=True)
    events = scan.feed(gateway.got())
    assert not scan.fault
    assert scan.is_between_messages
    return split([one.payload for one in events if one.opcode in (TEXT, BINARY)], is_protobuf=protobuf)


def reply_id(one: bytes, protobuf: bool) -> int:
    return _protobuf(one).id if protobuf else json.loads(one).get("id", 0)


def is_refusal(one: bytes, protobuf: bool) -> bool:
    code = _protobuf(one).error.code if protobuf else json.loads(one).get("error", {}).get("code")
    return code == 111


def _protobuf(one: bytes) -> ProtobufReply:
    size = next(number for number, byte in enumerate(one, 1) if not byte & 0x80)
    return ProtobufReply.FromString(one[size:])
