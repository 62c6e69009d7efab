"""A stream between a scripted client and a scripted Centrifugo."""

import json
from binascii import unhexlify

import pytest

from cpro._fast.replies import parse_replies
from cpro.doors.gateway.dialects import TwoWay
from cpro.doors.gateway.far import FarLeg
from cpro.doors.gateway.framing import Delimited, Events, Framing, Lines
from cpro.doors.gateway.session import WAITING_LIMIT_BYTES, About, Session
from cpro.doors.gateway.stream import StreamTap
from cpro.operation import Verdict
from tests.support.gateway import ScriptedRules, ScriptedTransport

HEAD = b"HTTP/1.0 200 OK\r\nAccess-Control-Allow-Origin: http://a.b\r\nContent-Type: text/plain\r\n\r\n"
CONNECT = b'{"id":1,"connect":{}}'
CONNECTED = '{"id":1,"connect":{"client":"c","version":"0","session":"s","node":"n"}}'
SEALED = CONNECTED.replace('"n"', '"<n>"')
REFUSED = {"code": 111, "message": "too many requests", "temporary": True}


class Timer:
    def __init__(self, timers: list, callback):
        self.timers, self.fire = timers, callback

    def cancel(self) -> None:
        if self in self.timers:
            self.timers.remove(self)


class Scene:
    """The stream, its owner's part, and what the two peers get."""

    max_server_message_bytes = 1000

    def __init__(self, framing: Framing | None = None, *, is_chunked: bool = True, **rules: set[str]):
        self.rules = ScriptedRules(**rules)
        self.client, self.far = ScriptedTransport(), ScriptedTransport()
        self.leg: FarLeg | None = None
        self.asked = b""
        self.posts: list[tuple[bytes, object]] = []
        self.sessions: list[str] = []
        self.timers: list = []
        self.reports: list[str] = []
        self.closed = 0
        self.framing = framing or Lines()
        self.stream = StreamTap(
            self,
            self.client,
            self.framing,
            TwoWay(protobuf=self.framing.protobuf),
            self._build,
            is_chunked=is_chunked,
            cors=b"Access-Control-Allow-Origin: http://a.b\r\n",
            most_post_bytes=65_536,
        )
        self.stream.session = Session(
            self.stream,
            lambda: self.rules,
            lambda: 0,
            connection="g",
            about=About("http_stream", {}),
            protobuf=self.framing.protobuf,
            address="192.0.2.1",
        )

    def _build(self, asked: bytes) -> bytes:
        self.asked = asked
        return b"request"

    def call_later(self, delay_s: float, callback) -> "Timer":
        self.timers.append(Timer(self.timers, callback))
        return self.timers[-1]

    def dial_for(self, stream: StreamTap, leg: FarLeg) -> None:
        self.leg = leg

    def seal_node(self, node: str) -> str:
        return f"<{node}>"

    def on_session(self, stream: StreamTap) -> None:
        self.sessions.append(stream.names[0])

    def post(self, stream: StreamTap, data: bytes, on_done) -> None:
        self.posts.append((data, on_done))

    def on_tap_closed(self, tap: StreamTap) -> None:
        self.closed += 1

    def report(self, what: str) -> None:
        self.reports.append(what)

    # the peers

    def open(self, asked: bytes = CONNECT) -> "Scene":
        self.stream.start(asked)
        self.answer(HEAD)
        return self

    def answer(self, data: bytes) -> None:
        """Centrifugo sends this."""
        if not self.far.written:
            self.leg.connection_made(self.far)
        self.leg.data_received(data)

    def say(self, *lines: str) -> None:
        self.answer("".join(f"{line}\n" for line in lines).encode())

    @property
    def heard(self) -> list[str]:
        """The messages that the client has, each chunk of them whole."""
        _, _, body = self.client.written.partition(b"\r\n\r\n")
        content = b"".join(chunks(body))
        return self.framing.content(content).decode().splitlines()


def chunks(body: bytes) -> list[bytes]:
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        found.append(rest[:length])
        assert rest[length : length + 2] == b"\r\n"
        body = rest[length + 2 :]
    return found


def opened(**rules: set[str]) -> Scene:
    scene = Scene(**rules).open()
    scene.say(CONNECTED)
    return scene


def test_the_reply_to_a_connect_names_a_node_of_ours():
    scene = opened()
    assert scene.asked == CONNECT
    assert scene.heard == [SEALED]
    assert scene.sessions == ["s"]
    assert scene.stream.names == ("s", "n")
    head = scene.client.written.partition(b"\r\n\r\n")[0]
    assert head.startswith(
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: http://a.b\r\nContent-Type: text/plain\r\n"
    )
    assert b"Transfer-Encoding: chunked" in head
    assert b"Connection: close" in head


def test_a_client_of_http_1_0_gets_no_chunks():
    scene = Scene(is_chunked=False).open()
    scene.say(CONNECTED)
    scene.stream.disconnect(3001, "shutdown")
    head, _, body = scene.client.written.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.decode().splitlines() == [SEALED, '{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}']


@pytest.mark.parametrize("at", range(len(HEAD) + len(CONNECTED) + 60))
def test_whatever_the_pieces_the_client_hears_the_same(at):
    stream = HEAD + f'{CONNECTED}\n{{"id":2,"publish":{{}}}}\n{{}}\n'.encode()
    scene = Scene()
    scene.stream.start(CONNECT + b'\n{"id":2,"publish":{"channel":"x"}}')
    scene.answer(stream[:at])
    scene.answer(stream[at:])
    assert scene.heard == [SEALED, '{"id":2,"publish":{}}', "{}"]


@pytest.mark.parametrize("at", range(200))
def test_whatever_the_pieces_events_stay_whole(at):
    stream = HEAD + f"\r\ndata: {CONNECTED}\n\ndata: {{}}\n\n".encode()
    scene = Scene(Events(), refuse={"history"})
    scene.stream.start(CONNECT + b'\n{"id":2,"history":{"channel":"x"}}')
    scene.answer(stream[:at])
    scene.answer(stream[at:])
    heard = scene.heard
    assert heard[0] == SEALED
    assert sorted(heard[1:]) == sorted(["{}", json.dumps({"id": 2, "error": REFUSED}, separators=(",", ":"))])


def test_whatever_the_pieces_protobuf_stays_whole():
    connected = unhexlify("0d08012a09") + b"\x0a\x01c\x4a\x01s\x52\x01n"
    stream = HEAD + connected + b"\x00" + unhexlify("04080242") + b"\x00"
    for at in range(len(stream)):
        scene = Scene(Delimited())
        scene.stream.start(unhexlify("0408012200"))
        scene.answer(stream[:at])
        scene.answer(stream[at:])
        body = b"".join(chunks(scene.client.written.partition(b"\r\n\r\n")[2]))
        first, *_, last = parse_replies(body, True)
        assert (first.node, first.session, last.id) == ("<n>", "s", 2)


def test_a_refusal_stands_behind_the_message_that_is_under_way():
    scene = opened(refuse={"history"})
    scene.answer(b'{"push":{"channel":"x",')
    scene.stream.take(b'{"id":2,"history":{"channel":"x"}}')
    scene.answer(b'"pub":{"data":1}}}\n')
    assert [json.loads(line) for line in scene.heard[1:]] == [
        {"id": 2, "error": REFUSED},
        {"push": {"channel": "x", "pub": {"data": 1}}},
    ]
    assert not scene.posts


def test_what_may_pass_is_posted_in_order_one_at_a_time():
    scene = opened()
    for number in (2, 3, 4):
        scene.stream.take(b'{"id":%d,"publish":{"channel":"x"}}' % number)
    assert len(scene.posts) == 1
    scene.posts[0][1](True)
    said = "\n".join(json.loads(data) for data, _ in scene.posts)
    assert [json.loads(line)["id"] for line in said.split("\n")] == [2, 3, 4]


def test_a_post_that_fails_ends_the_stream():
    scene = opened()
    scene.stream.take(b'{"id":2,"publish":{"channel":"x"}}')
    scene.posts[0][1](False)
    assert scene.client.is_closed
    assert scene.far.is_closed
    assert scene.closed == 1
    assert scene.rules.rows[-1] == ("publish", "", 0, 3000)


def test_nothing_passes_before_the_connect_is_judged():
    scene = Scene(ask={"connect"}).open(CONNECT + b'\n{"id":2,"publish":{"channel":"x"}}')
    scene.say(CONNECTED, "{}")
    assert scene.heard == []
    assert not scene.posts
    scene.rules.ask.clear()
    scene.rules.deciders.pop()(Verdict.ADMITTED)
    assert scene.heard == [SEALED, "{}"]
    assert json.loads(scene.posts[0][0]) == '{"id":2,"publish":{"channel":"x"}}'


def test_a_refused_connect_is_told_so_and_ends():
    scene = Scene(refuse={"connect"}).open(CONNECT + b'\n{"id":2,"publish":{"channel":"x"}}')
    scene.say(CONNECTED)
    assert [json.loads(line) for line in scene.heard] == [{"id": 1, "error": REFUSED}]
    assert scene.far.is_closed
    scene.say("{}")
    scene.timers.pop().fire()
    assert scene.client.is_closed
    assert chunks(scene.client.written.partition(b"\r\n\r\n")[2])[-1] == b""
    assert not scene.posts
    assert "open" not in [event for event, _ in scene.rules.events]


def test_a_request_of_which_nothing_may_pass_is_answered_without_centrifugo():
    scene = Scene()
    scene.stream.start(b'{"id":1,"connect":{},"connect":{}}')
    assert scene.leg is None
    assert b"Access-Control-Allow-Origin: http://a.b\r\n" in scene.client.written
    assert [json.loads(line)["error"]["code"] for line in scene.heard] == [107]
    assert scene.client.is_closed
    assert scene.closed == 1


def test_centrifugos_own_refusal_and_end_pass_as_they_are():
    scene = Scene().open()
    scene.say('{"push":{"disconnect":{"code":3500,"reason":"invalid token"}}}')
    scene.leg.connection_lost(None)
    assert scene.heard == ['{"push":{"disconnect":{"code":3500,"reason":"invalid token"}}}']
    assert scene.client.is_closed
    assert scene.rules.rows == [("connect", "", 0, 3500)]
    assert scene.rules.events == [("close", 3500)]


def test_another_answer_than_a_stream_is_relayed():
    scene = Scene()
    scene.stream.start(CONNECT)
    scene.answer(b"HTTP/1.0 413 Request Entity Too Large\r\nContent-Length: 0\r\n\r\n")
    assert scene.client.written.startswith(b"HTTP/1.1 413 ")
    assert b"0\r\n\r\n" not in scene.client.written.partition(b"\r\n\r\n")[2]
    assert scene.client.is_closed


def test_a_centrifugo_that_is_away_is_a_bad_gateway():
    scene = Scene()
    scene.stream.start(CONNECT)
    scene.stream.on_far_lost()
    assert scene.client.written.startswith(b"HTTP/1.1 502 ")
    assert scene.closed == 1


def test_a_stop_before_centrifugo_has_answered_is_no_stream():
    scene = Scene()
    scene.stream.start(CONNECT)
    scene.stream.disconnect(3001, "shutdown")
    assert scene.client.written.startswith(b"HTTP/1.1 503 ")
    assert scene.client.is_closed
    assert scene.closed == 1
    assert scene.rules.events == [("close", 3001)]


def test_a_client_that_vanishes_takes_centrifugos_leg_along():
    scene = opened()
    scene.stream.connection_lost(None)
    assert scene.far.is_closed
    assert scene.closed == 1
    assert scene.rules.events[-1] == ("close", 3000)


def test_a_client_that_vanishes_before_centrifugo_is_reached():
    scene = Scene()
    scene.stream.start(CONNECT)
    scene.stream.connection_lost(None)
    scene.leg.connection_made(scene.far)
    assert scene.far.is_aborted


def test_a_client_that_does_not_read_stops_centrifugo_and_is_not_waited_for_at_the_end():
    scene = opened()
    scene.stream.pause_writing()
    assert scene.far.is_paused
    scene.stream.resume_writing()
    assert not scene.far.is_paused
    assert not scene.timers
    scene.client.unread = 1
    scene.stream.disconnect(3001, "shutdown")
    scene.timers.pop().fire()
    assert scene.client.is_aborted


def test_a_client_that_reads_no_more_is_given_up():
    scene = opened()
    scene.stream.pause_writing()
    scene.timers.pop(0).fire()
    assert scene.far.is_closed
    assert scene.closed == 1
    assert scene.client.is_aborted


def test_a_message_without_end_ends_the_stream():
    scene = opened()
    scene.answer(b"x" * (scene.max_server_message_bytes + 1))
    assert scene.reports
    assert scene.client.is_closed


def test_posts_wait_while_too_much_is_under_way():
    scene = opened()
    scene.stream.take(b'{"id":2,"publish":{"channel":"x"}}')
    big = json.dumps({"id": 3, "publish": {"channel": "x", "data": "y" * WAITING_LIMIT_BYTES}}).encode()
    scene.stream.take(big)
    assert scene.stream.is_full
    went_on: list[int] = []
    scene.stream.park(lambda: went_on.append(1))
    assert not went_on
    scene.posts[0][1](True)
    assert went_on == [1]


def test_posts_that_wait_hear_of_the_end():
    scene = opened(ask={"publish"})
    went_on: list[int] = []
    scene.stream.hold()
    scene.stream.park(lambda: went_on.append(1))
    scene.stream.connection_lost(None)
    assert went_on == [1]
