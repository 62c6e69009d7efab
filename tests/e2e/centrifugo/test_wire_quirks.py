"""How a real Centrifugo takes odd frames and odd commands, beside what cpro's readers and their twin say it does."""

import struct

import pytest

from cpro._fast.commands import BAD_REQUEST, malformed, parse_commands
from cpro._fast.replies import parse_replies
from cpro._fast.wsframe import BINARY, CLOSE, DROP, TEXT, build_frame
from tests.oracle.commands import GoRefuses, Meaning, read_line
from tests.support.centrifugo import Centrifugo
from tests.support.websocket import RawWebSocket
from tests.unit.test_wsframe import CLOSES, LIMIT, WRONG, masked

pytestmark = pytest.mark.centrifugo

CONFIG = {
    "client": {"insecure": True},
    "websocket": {"message_size_limit": LIMIT},
    "channel": {"without_namespace": {"presence": True, "history_size": 10, "history_ttl": "300s"}},
}
CONNECT = b'{"id":1,"connect":{}}'
REFUSED_BY_ALL = 3501


@pytest.fixture(scope="module")
def centrifugo(tmp_path_factory):
    with Centrifugo(tmp_path_factory.mktemp("quirks"), CONFIG) as one:
        yield one


@pytest.fixture
def socket(centrifugo):
    """Connected and over the connect reply."""
    with RawWebSocket(centrifugo.url) as one:
        one.send_text(CONNECT)
        (reply,) = parse_replies(one.next_event().payload, False)
        assert reply.kind == "connect"
        yield one


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_frame_is_answered_as_we_would(socket, name):
    frames, code, reason = WRONG[name]
    socket.send(b"".join(frames))
    assert socket.next_close() == ((0, b"") if code == DROP else (code, reason))


@pytest.mark.parametrize("name", CLOSES)
def test_a_close_that_we_take_is_taken(socket, name):
    payload, code, _ = CLOSES[name]
    socket.send(masked(CLOSE, payload))
    assert socket.next_close() == (code, b"")


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1014, 1015, 2999, 5000])
def test_a_close_code_that_we_refuse_is_refused(socket, code):
    socket.send(masked(CLOSE, struct.pack("!H", code)))
    assert socket.next_close() == (1002, b"bad close code %d" % code)


QUIRKS = [
    *("", " ", ' \t{"id" : 7 ,"publish":{"data":{},"channel":"c"}} \r'),
    '{"id":7,"history":{"channel":"c","x":' + "[" * 20 + "]" * 20 + "}}",
    *r"""
{"id":7,"publish":{"channel":"c","data":1}}
{"id":7,"Publish":{"CHANNEL":"c","Data":1}}
{"ID":7,"HISTORY":{"chaNNel":"c"}}
{"id":7,"\u0070ublish":{"channel":"c","data":1}}
{"id":7,"PRESENCE\u005fstats":{"channel":"c"}}
{"id":7,"publi$h":{"channel":"c","data":1}}
{"id":7,"publi\u017fh":{"channel":"c","data":1}}
{"id":7,"$ubscribe":{"channel":"c"}}
{"id":7,"$ub$cribe":{"channel":"c"}}
{"id":7,"$ubScribe":{"channel":"c"}}
{"id":7,"hi$tory":{"channel":"c"}}
{"id":7,"pre$ence":{"channel":"c"}}
{"id":7,"unSub$cribe":{"channel":"c"}}
{"id":7,"publish":{"channel":"c","data":1},"publish":null}
{"id":7,"publish":null,"history":{"channel":"c"}}
{"id":7,"publish":{"channel":"c"},"PUBLISH":{"data":1}}
{"id":7,"history":{"channel":""},"history":{"channel":"c"}}
{"id":7,"history":{"channel":"c","channel":null}}
{"id":0,"id":7,"history":{"channel":"c"}}
{"id":7,"Id":0,"history":{"channel":"c"}}
{"id":7,"id":null,"history":{"channel":"c"}}
{"id":7,"history":{"channel":"c"},"presence":{"channel":"c"}}
{"id":7,"presence":{"channel":"c"},"publish":{"channel":"c","data":1}}
{"id":7,"history":{"channel":"c"}} trailing
{"id":7,"history":{"channel":"c"}}{"id":8}
null
nullx
{}
{} x
[]
1
"x"
{"id":7
{"id":7,}
{,}
{"id":7 "history":{}}
{"history":{"channel":"c"}}
{"id":7}
{"id":7,"ping":{}}
{"id":7,"ping":{},"history":{"channel":"c"}}
{"id":7,"send":{"data":1}}
{"send":{"data":1}}
{"id":7.0,"history":{"channel":"c"}}
{"id":07,"history":{"channel":"c"}}
{"id":-7,"history":{"channel":"c"}}
{"id":"7","history":{"channel":"c"}}
{"id":4294967295,"history":{"channel":"c"}}
{"id":4294967296,"history":{"channel":"c"}}
{"id":7e0,"history":{"channel":"c"}}
{"id":null,"history":{"channel":"c"}}
{"id":7,"history":[]}
{"id":7,"history":1}
{"id":7,"history":{"channel":1}}
{"id":7,"history":{"channel":"c","limit":"1"}}
{"id":7,"history":{"channel":"c","limit":-1}}
{"id":7,"history":{"channel":"c","limit":-0}}
{"id":7,"history":{"channel":"c","limit":2147483648}}
{"id":7,"history":{"channel":"\u0063"}}
{"id":7,"history":{"channel":"\x"}}
{"id":7,"history":{"channel":"c","x":tru}}
{"id":7,"x":{"id":8,"publish":{}},"history":{"channel":"c"}}
{"id":7,"history":{"channel":"c","x":[1,]}}
{"id":7,"subscribe":{"channel":"c","recover":1}}
{"id":7,"subscribe":{"channel":"c","recover":null}}
{"id":7,"subscribe":{"channel":"c","flag":1}}
{"id":7,"subscribe":{"channel":"c","type":0,"phase":0}}
{"id":7,"publish":{"channel":"c","data":1,"type":0}}
{"id":7,"unsubscribe":{"channel":"c","data":nullx}}
{"id":7,"history":{"channel":"c","x":-}}
{"id":7,"history":{"channel":"c","x":"\ud800"}}
{"id":7,"history":{"channel":"c","x":01}}
""".strip()
    .replace("$", "\u017f")
    .splitlines(),
]
"""Commands; the long s is written $."""


def meaning_of(line: bytes) -> Meaning | None:
    try:
        return read_line(line)
    except GoRefuses:
        return None


def outcome(socket: RawWebSocket, payload: bytes) -> tuple[str, int]:
    """Which operation was executed, by its reply, and the id in that; or the close code."""
    socket.send_text(payload)
    while (event := socket.next_event()) is not None:
        if event.opcode == CLOSE:
            return "close", event.code
        for reply in parse_replies(event.payload, False):
            if reply.id:
                return reply.kind, reply.id
    return "hung up", 0


@pytest.mark.parametrize("line", QUIRKS)
def test_the_twin_is_right_about(centrifugo, socket, line):
    """And so is the reader that the gateway uses, where it forwards the command at all."""
    data = line.encode()
    meaning = meaning_of(data)
    kind, number = outcome(socket, data)
    if meaning is not None and meaning.kind == "ping" and not meaning.is_plain:
        assert (kind, number) == ("error", 7)  # classified by the other request, then executed as a ping
    elif meaning is None or meaning.kind in ("pong", "none", "ping"):
        assert (kind, number) == ("close", REFUSED_BY_ALL)
    elif meaning.kind == "send":
        assert (kind, number) == ("close", 3508)
    elif kind == "close":  # neither channel nor data: the reader may know which operation, Centrifugo executes none
        assert (number, meaning.request.get("channel", "")) == (3501, "")
    else:
        assert (kind, number) == (meaning.kind, meaning.id)
    if (command := parse_commands(data, False)[0]).fault == 0:
        assert meaning is not None
        assert (command.kind, command.id) == (meaning.kind, meaning.id)
    elif meaning is not None and command.fault == BAD_REQUEST:
        assert not meaning.is_plain


@pytest.mark.parametrize("line", QUIRKS)
def test_what_is_forwarded_instead_does_the_same(centrifugo, line):
    (command, *_) = parse_commands(line.encode(), False)
    if command.encoded is None:
        return
    outcomes = []
    for payload in (line.encode(), command.encoded):
        with RawWebSocket(centrifugo.url) as socket:
            socket.send_text(CONNECT)
            socket.next_event()
            outcomes.append(outcome(socket, payload))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("payload", [b"", b"\n", CONNECT + b"\n\n", b"\n" + CONNECT])
def test_empty_payloads_and_lines_disconnect(centrifugo, payload):
    assert parse_commands(payload, False)[-1].fault == REFUSED_BY_ALL
    with RawWebSocket(centrifugo.url) as socket:
        socket.send_text(payload)
        assert socket.next_close()[0] == REFUSED_BY_ALL


def test_commands_before_a_bad_one_are_executed(socket):
    socket.send_text(
        b'{"id":2,"history":{"channel":"c"}}\n' + malformed(False) + b'\n{"id":3,"history":{"channel":"c"}}'
    )
    (reply,) = parse_replies(socket.next_event().payload, False)
    assert (reply.id, reply.kind) == (2, "history")
    assert socket.next_close()[0] == REFUSED_BY_ALL


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content)]) + content


def delimited(message: bytes) -> bytes:
    return bytes([len(message)]) + message


HISTORY = field(1, 7) + field(10, field(1, b"c"))
PROTOBUF_QUIRKS = {
    "plain": delimited(HISTORY),
    "unknown field": delimited(HISTORY + b"\xfa\x3e\x01x"),
    "a group": delimited(HISTORY + b"\x93\x3f\x08\x01\x94\x3f"),
    "an open group": delimited(HISTORY + b"\x93\x3f\x08\x01"),
    "id twice": delimited(field(1, 9) + HISTORY),
    "channel twice": delimited(field(1, 7) + field(10, field(1, b"x") + field(1, b"c"))),
    "id of 33 bits": delimited(b"\x08\x87\x80\x80\x80\x10" + HISTORY[2:]),
    "a field's number of 33 bits": delimited(HISTORY[:2] + b"\xd2\x80\x80\x80\x80\x01\x03" + field(1, b"c")),
    "wrong wire type": delimited(field(1, b"7") + HISTORY[2:]),
    "field 0": delimited(HISTORY + b"\x02\x00"),
    "wire type 7": delimited(HISTORY + b"\xff\x3e"),
    "a long varint": delimited(b"\x08\x87\x80\x80\x80\x80\x80\x80\x80\x80\x7f" + HISTORY[2:]),
    "a varint too long": delimited(b"\x08\x87\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00" + HISTORY[2:]),
    "a longer length than needed": bytes([len(HISTORY) | 0x80, 0]) + HISTORY,
    "too short": delimited(HISTORY)[:-1],
    "not a length": b"\xff" * 10,
    "pong": b"\x00",
    "no request": delimited(field(1, 7)),
    "malformed": malformed(True),
    "a length and nothing more": delimited(HISTORY) + b"\x05",
    "half a length": delimited(HISTORY) + b"\x85",
    "empty": b"",
}


@pytest.mark.parametrize("name", PROTOBUF_QUIRKS)
def test_protobuf_is_read_as_centrifugo_reads_it(centrifugo, name):
    payload = PROTOBUF_QUIRKS[name]
    commands = parse_commands(payload, True)
    expected = [(c.kind, c.id) for c in commands if not c.fault and c.kind not in ("pong", "none")]
    is_bad = len(expected) < len(commands)
    seen = []
    with RawWebSocket(centrifugo.url, protobuf=True) as socket:
        socket.send(build_frame(BINARY, delimited(field(1, 1) + field(4, b"")), mask_key=1))
        socket.next_event()
        socket.send(build_frame(BINARY, payload, mask_key=1))
        if not is_bad:  # then something else ends the connection
            socket.send(build_frame(BINARY, malformed(True), mask_key=1))
        while (event := socket.next_event()) is not None and event.opcode != CLOSE:
            seen += [(reply.kind, reply.id) for reply in parse_replies(event.payload, True)]
    assert event is not None
    assert event.code == REFUSED_BY_ALL
    assert seen == expected


def test_publications_are_written_as_the_scan_expects(centrifugo):
    """Were they not, every push would be given out: right, but slow."""
    for protobuf in (False, True):
        with RawWebSocket(centrifugo.url, protobuf) as socket:
            if protobuf:
                socket.send(build_frame(BINARY, delimited(field(1, 1) + field(4, b"")), mask_key=1))
                socket.send(build_frame(BINARY, delimited(field(1, 2) + field(5, field(1, b"c"))), mask_key=1))
            else:
                socket.send(build_frame(TEXT, CONNECT + b'\n{"id":2,"subscribe":{"channel":"c"}}', mask_key=1))
            while 2 not in {reply.id for reply in parse_replies(socket.next_event().payload, protobuf)}:
                pass
            centrifugo.api("publish", {"channel": "c", "data": {"text": 'a "quoted" one'}})
            assert parse_replies(socket.next_event().payload, protobuf) == []


def test_untrack_is_a_refresh_where_there_is_no_shared_poll(centrifugo):
    """So it must be charged as one: an untrack is never refused. Here it fails over its token, as a refresh does."""
    outcomes = []
    for type_ in (0, 1, 2):
        with RawWebSocket(centrifugo.url) as socket:
            socket.send_text(CONNECT + b'\n{"id":2,"subscribe":{"channel":"c"}}')
            while 2 not in {reply.id for reply in parse_replies(socket.next_event().payload, False)}:
                pass
            line = b'{"id":3,"sub_refresh":{"channel":"c","token":"t","type":%d}}' % type_
            outcomes.append(outcome(socket, line))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][0] == "close"
