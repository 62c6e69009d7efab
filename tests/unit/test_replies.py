"""What the server says, as far as the gateway keeps books; and what the gateway says in its place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.replies import Reply, build_connect, build_error_reply, parse_replies
from tests.support.protobuf import delimited, field

CONNECT = (
    b'{"id":1,"connect":{"client":"c1","version":"6.9.1 OSS","expires":true,"ttl":3599,"data":{"session":"x"},'
    b'"subs":{"#42":{"recoverable":true,"publications":[{"data":{}}]},"n\\u0065ws":{}},"ping":25,"pong":true,'
    b'"session":"s1","node":"n1","time":1700000000000,"flag":1}}'
)


def only(payload: bytes, protobuf: bool = False) -> Reply:
    (reply,) = parse_replies(payload, protobuf)
    return reply


def test_a_connect_reply():
    r = only(CONNECT)
    assert (r.kind, r.id, r.client, r.version, r.session, r.node) == ("connect", 1, "c1", "6.9.1 OSS", "s1", "n1")
    assert (r.ping, r.pong, r.expires, r.ttl, r.flag, r.subs) == (25, True, True, 3599, 1, ["#42", "news"])
    assert (r.start, r.end) == (0, len(CONNECT))


def test_a_connect_reply_that_says_little():
    r = only(b'{"id":1,"connect":{"client":"c1","version":"v"}}')
    assert (r.session, r.node, r.ping, r.pong, r.subs) == ("", "", 0, False, [])


def test_a_page_of_a_map():
    r = only(b'{"id":2,"subscribe":{"type":1,"phase":2,"cursor":"p2","id":-5,"state":[{"key":"a","data":{"type":9}}]}}')
    assert (r.kind, r.type, r.phase, r.cursor, r.number) == ("subscribe", 1, 2, "p2", -5)
    r = only(delimited(field(1, 2) + field(6, field(15, 1) + field(16, 2) + field(17, b"p2"))), protobuf=True)
    assert (r.kind, r.id, r.type, r.phase, r.cursor) == ("subscribe", 2, 1, 2, "p2")


def test_an_error():
    r = only(b'{"id":2,"error":{"code":111,"message":"too many \\"requests\\"","temporary":true}}')
    assert (r.kind, r.id, r.code, r.reason, r.temporary) == ("error", 2, 111, 'too many "requests"', True)
    assert not only(b'{"id":2,"error":{"code":103,"message":"permission denied"}}').temporary


@pytest.mark.parametrize(
    ("line", "kind", "channel", "code", "number"),
    [
        (b'{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"r"}}}', "push_unsubscribe", "c", 2500, 0),
        (b'{"push":{"id":7,"unsubscribe":{"code":2000,"reason":"r"}}}', "push_unsubscribe", "", 2000, 7),
        (b'{"push":{"disconnect":{"code":3501,"reason":"r"}}}', "push_disconnect", "", 3501, 0),
        (b'{"push":{"channel":"c","subscribe":{"data":{}}}}', "push_subscribe", "c", 0, 0),
        (b'{"push":{"connect":{"client":"c"}}}', "push_connect", "", 0, 0),
        (b'{"push":{"refresh":{"expires":true,"ttl":5}}}', "push_refresh", "", 0, 0),
        (b'{"push":{"channel":"c"}}', "other", "c", 0, 0),
        (b"{}", "ping", "", 0, 0),
        (b' {"id":3,"rpc":{"data":{"error":{"code":1}}}}', "rpc", "", 0, 0),
        (b'{"id":3,"newer":{}}', "other", "", 0, 0),
        (b'{"id":3,"error":null,"publish":{}}', "publish", "", 0, 0),
    ],
)
def test_other_lines(line, kind, channel, code, number):
    r = only(line)
    assert (r.kind, r.channel, r.code, r.number) == (kind, channel, code, number)
    assert r.reason == ("r" if code else "")


def test_publications_and_such_are_passed_over():
    payload = b"\n".join(
        [
            b'{"push":{"channel":"c","pub":{"data":{}}}}',
            b'{"id":1,"publish":{}}',
            b'{"push": {"pub":{"data":{}},"channel":"c"}}',
            b'{"push":{"channel":"c","join":{}}}',
            b"{}",
            b'{"push":{"message":{}}}',
            b"",
        ]
    )
    assert [(r.kind, r.id) for r in parse_replies(payload, False)] == [("publish", 1), ("ping", 0)]


@pytest.mark.parametrize("line", [b"x", b"", b"[]", b'{"id":1', b'{"id":1,"connect":[]}', b'{"id":"1"}', b'{"push":1}'])
def test_what_cannot_be_read_is_other(line):
    assert [r.kind for r in parse_replies(line + b"\n{}", False)] == ["other", "ping"]


def test_protobuf_that_cannot_be_read():
    assert [r.kind for r in parse_replies(b"\x02\x08\x80\x00", True)] == ["other", "ping"]
    assert [r.kind for r in parse_replies(b"\x00\x05\x08", True)] == ["ping", "other"]
    assert parse_replies(b"\xff" * 11, True) == []


@pytest.mark.parametrize("size", range(12, 40))
def test_of_what_is_cut_off_the_id_is_read(size):
    line = b'{"id":7,"history":{"publications":[{"data":{"text":"abc"}}]}}'
    message = delimited(field(1, 7) + field(11, field(1, field(4, b"x" * 60))))
    assert [(r.kind, r.id) for r in parse_replies(line[:size], False)] == [("other", 7)]
    assert [(r.kind, r.id) for r in parse_replies(message[:size], True)] == [("other", 7)]


def test_error_replies_are_spelt_as_centrifugo_does():
    message = "too many requests"
    assert build_error_reply(2, 111, message, True, False) == (
        b'{"id":2,"error":{"code":111,"message":"too many requests","temporary":true}}'
    )
    assert build_error_reply(2, 103, "no", False, False) == b'{"id":2,"error":{"code":103,"message":"no"}}'
    assert build_error_reply(2, 111, message, True, True) == bytes.fromhex(
        "1b08021217086f1211746f6f206d616e792072657175657374731801"
    )


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.text(), st.booleans())
def test_error_replies_are_read_as_they_were_meant(command_id, code, message, temporary):
    message = message.encode("utf-8", "replace").decode()
    line = build_error_reply(command_id, code, message, temporary, False)
    assert b"\n" not in line
    assert json.loads(line)["error"]["message"] == message
    for payload, protobuf in ((line, False), (build_error_reply(command_id, code, message, temporary, True), True)):
        r = only(payload, protobuf)
        assert (r.kind, r.id, r.code, r.reason, r.temporary) == ("error", command_id, code, message, temporary)


@pytest.mark.parametrize(("command_id", "code"), [(-1, 1), (1 << 32, 1), (1, -1), (1, 1 << 32)])
def test_error_replies_have_numbers_of_32_bits(command_id, code):
    with pytest.raises(ValueError, match="32 bits"):
        build_error_reply(command_id, code, "", False, False)


def test_sessions_are_replaced_and_nothing_else():
    r = only(CONNECT)
    assert build_connect(r, None, None) == CONNECT
    replaced = build_connect(r, 'a"b', "n2")
    assert replaced == CONNECT.replace(b'"s1"', b'"a\\"b"').replace(b'"n1"', b'"n2"')
    assert (only(replaced).session, only(replaced).node) == ('a"b', "n2")
    without = b'{"id":1,"connect":{"client":"c1"}}'
    assert build_connect(only(without), "s", "n") == without


def test_sessions_are_replaced_in_protobuf():
    def reply(session: bytes, node: bytes) -> bytes:
        result = field(1, b"c") + field(9, session) + field(6, field(1, b"news")) + field(10, node) + field(11, 5)
        return delimited(field(1, 1) + field(5, result))

    r = only(reply(b"s1", b"n1"), protobuf=True)
    assert build_connect(r, "s" * 300, None) == reply(b"s" * 300, b"n1")
    assert build_connect(r, None, "n2") == reply(b"s1", b"n2")
    assert r.subs == ["news"]


def test_only_connect_replies_have_sessions():
    with pytest.raises(ValueError, match="connect"):
        build_connect(only(b'{"id":1,"subscribe":{}}'), "s", "n")
    with pytest.raises(TypeError, match="parse_replies"):
        Reply()


@pytest.mark.parametrize(
    ("before", "data", "after"),
    [
        (b',"data":{"a":[1,{"b":"}"}]}', b"[2]", b',"data":[2]'),
        (b',"data":{"a":1}', b"", b""),
        (b"", b"[2]", b""),
    ],
)
def test_the_data_of_a_connect_reply_can_be_replaced_and_taken_out(before: bytes, data: bytes, after: bytes):
    line = b'{"id":1,"connect":{"client":"c","version":"v"%s,"ping":25}}'
    assert build_connect(only(line % before), data=data) == line % after


def test_the_data_of_a_connect_reply_in_protobuf_can_be_replaced_and_taken_out():
    def reply(data: bytes) -> bytes:
        field = b"\x2a" + bytes([len(data)]) + data if data else b""
        result = b"\x0a\x01c" + field + b"\x38\x19"
        body = b"\x08\x01\x2a" + bytes([len(result)]) + result
        return bytes([len(body)]) + body

    (r,) = parse_replies(reply(b"old"), True)
    assert r.data == b"old"
    assert build_connect(r, data=b"newer") == reply(b"newer")
    assert build_connect(r, data=b"") == reply(b"")
