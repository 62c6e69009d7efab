"""Commands as the gateway uses them: what is reported, what is forwarded, what is refused."""

import pytest

from cpro._fast.command import Command
from cpro._fast.commands import BAD_REQUEST, MALFORMED, build_payload, malformed, parse_commands, without_dictionary
from tests.support.protobuf import delimited, field


def only(payload: bytes, protobuf: bool = False) -> Command:
    (command,) = parse_commands(payload, protobuf)
    return command


def test_a_connect_in_json():
    line = (
        b'{"id":1,"connect":{"token":"t","data":{"a":1},"name":"js","version":"\\u0031","headers":{"a":"b"},'
        b'"flag":-2,"subs":{"c":{"recover":true,"token":"other"}}}}'
    )
    c = only(line)
    assert (c.kind, c.id, c.token, c.data_size, c.name, c.version) == ("connect", 1, "t", 7, "js", "1")
    assert (c.flag, c.has_headers, c.wants_dictionary, c.start, c.end) == (-2, True, False, 0, len(line))


def test_a_connect_in_protobuf():
    request = field(1, b"t") + field(2, b"1234567") + field(4, b"js") + field(5, b"1") + field(6, field(1, b"a"))
    c = only(delimited(field(1, 300) + field(4, request + field(7, 2))), protobuf=True)
    assert (c.kind, c.id, c.token, c.data_size, c.name, c.version) == ("connect", 300, "t", 7, "js", "1")
    assert (c.flag, c.has_headers, c.wants_dictionary) == (2, True, False)


SUBSCRIBES = {
    False: b'{"id":2,"subscribe":{"channel":"c","token":"t","recover":true,"data":[],"flag":1,"type":1,"phase":2,'
    b'"cursor":"p2","limit":-1}}',
    True: delimited(
        field(1, 2)
        + field(
            5,
            field(1, b"c")
            + (field(2, b"t") + field(3, 1) + field(8, b"[]") + field(14, 1) + field(15, 1) + field(16, 2))
            + (field(17, b"p2") + field(18, (1 << 64) - 1)),
        )
    ),
}


@pytest.mark.parametrize("protobuf", [False, True])
def test_a_subscribe(protobuf):
    c = only(SUBSCRIBES[protobuf], protobuf)
    assert (c.kind, c.id, c.channel, c.token, c.recover, c.data_size) == ("subscribe", 2, "c", "t", True, 2)
    assert (c.flag, c.type, c.phase, c.cursor, c.limit, c.method) == (1, 1, 2, "p2", -1, "")


KINDS = {
    "publish": (b'"publish":{"channel":"c"}', field(7, field(1, b"c"))),
    "map_publish": (b'"publish":{"channel":"c","type":1}', field(7, field(1, b"c") + field(3, 1))),
    "map_remove": (
        b'"publish":{"removed":true,"type":1,"channel":"c"}',
        field(7, field(5, 1) + field(3, 1) + field(1, b"c")),
    ),
    "sub_refresh": (b'"sub_refresh":{"channel":"c","type":3}', field(15, field(1, b"c") + field(3, 3))),
    "track": (b'"sub_refresh":{"channel":"c","type":1}', field(15, field(1, b"c") + field(3, 1))),
    "untrack": (b'"sub_refresh":{"channel":"c","type":2}', field(15, field(1, b"c") + field(3, 2))),
    "unsubscribe": (b'"unsubscribe":{"channel":"c"}', field(6, field(1, b"c"))),
    "presence": (b'"presence":{"channel":"c"}', field(8, field(1, b"c"))),
    "presence_stats": (b'"presence_stats":{"channel":"c"}', field(9, field(1, b"c"))),
    "history": (b'"history":{"channel":"c"}', field(10, field(1, b"c"))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind):
    line, fields = KINDS[kind]
    for c in (only(b'{"id":7,' + line + b"}"), only(delimited(field(1, 7) + fields), protobuf=True)):
        assert (c.kind, c.id, c.channel, c.fault, c.encoded) == (kind, 7, "c", 0, None)
    for c in (only(b"{" + line + b"}"), only(delimited(fields), protobuf=True)):
        assert (c.kind, c.id) == ("pong", 0)


def test_kinds_without_a_channel():
    for kind, number in {"rpc": 13, "send": 12, "refresh": 14, "ping": 11}.items():
        assert only(b'{"id":7,"%b":{}}' % kind.encode()).kind == kind
        assert only(delimited(field(1, 7) + field(number, b"")), protobuf=True).kind == kind
    assert only(b'{"send":{}}').kind == "send"
    assert only(b'{"id":7,"rpc":{"method":"a:b"}}').method == "a:b"
    assert [only(b"{}").kind, only(b'{"id":7}').kind, only(b"\0", protobuf=True).kind] == ["pong", "none", "pong"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":7,"publish":{"channel":"c"},"publish":{"data":1}}',
        b'{"id":7,"publish":{"channel":"c","Channel":"d"}}',
        b'{"id":7,"publish":{"channel":"c"},"rpc":{}}',
        b'{"id":7,"rpc":{},"Publish":null,"publish":{"channel":"c"}}',
        '{"id":7,"publi\u017fh":{"channel":"c"}}'.encode(),
        b'{"id":7,"publi\\u017Fh":{"channel":"c"}}',
        '{"id":7,"connect":{"to\u212aen":"t"}}'.encode(),
        b'{"id":7,"rpc":{"data":' + b"[" * 600 + b"]" * 600 + b"}}",
        b'{"id":7,"connect":{"flag":1234567890123456789}}',
    ],
)
def test_what_would_take_a_merge_is_refused(line):
    command = only(line)
    assert (command.fault, command.id, command.encoded) == (BAD_REQUEST, 7, None)
    assert only(line.replace(b'"id":7', b'"id":0')).fault == MALFORMED
    with pytest.raises(ValueError, match="fault"):
        build_payload(line, [command], False)


@pytest.mark.parametrize(
    "fields",
    [
        field(7, field(1, b"c")) + field(7, field(2, b"1")),
        field(7, b"") + field(13, b""),
        field(4, b"") + field(11, b""),
    ],
)
def test_a_merge_in_protobuf_is_refused(fields):
    command = only(delimited(fields + field(1, 7)), protobuf=True)
    assert (command.fault, command.id) == (BAD_REQUEST, 7)
    assert only(delimited(fields), protobuf=True).fault == MALFORMED


def test_deep_payloads_pass_up_to_the_limit():
    line = b'{"id":7,"rpc":{"data":' + b'[{"a":' * 255 + b"1" + b"}]" * 255 + b"}}"
    assert (only(line).fault, only(line).data_size) == (0, len(line) - len(b'{"id":7,"rpc":{"data":}}'))


def test_nothing_is_read_behind_a_malformed_command():
    payload = b'{"id":1,"connect":{}}\n{"id":2,\n{"id":3,"rpc":{}}\n'
    assert [c.fault for c in parse_commands(payload, False)] == [0, MALFORMED]
    assert parse_commands(payload, False)[1].start == 22


def test_forwarded_as_they_came():
    payload = b'{"id":1,"rpc":{}}\n {"id":2,"rpc":{}}\n{"id":3,"rpc":{}}'
    for whole in (payload, payload + b"\n"):
        first, second, third = parse_commands(whole, False)
        assert build_payload(whole, [first, second, third], False) is whole
        assert build_payload(whole, [first, third], False) == b'{"id":1,"rpc":{}}\n{"id":3,"rpc":{}}'
        assert build_payload(whole, [second], False) == b' {"id":2,"rpc":{}}'
        assert build_payload(whole, [first, second], False) == payload[:36]
        assert build_payload(whole, [], False) == b""


def test_forwarded_as_they_came_in_protobuf():
    one, two = delimited(field(1, 1) + field(13, b"")), delimited(field(1, 2) + field(13, b""))
    payload = one + two
    assert build_payload(payload, parse_commands(payload, True), True) is payload
    _, second = parse_commands(payload, True)
    assert build_payload(payload, [second], True) == two
    assert build_payload(payload, [], True) == b""
    with_tail = payload + b"\x05"
    assert build_payload(with_tail, parse_commands(with_tail, True), True) == payload


@pytest.mark.parametrize("rest", [b" x", b"}", b'{"id":2,"publish":{}}', b"\0"])
def test_what_is_behind_a_command_is_cut_off(rest):
    assert only(b' {"id":1,"rpc":{}} ' + rest).encoded == b'{"id":1,"rpc":{}}'
    assert only(b' {"id":1,"rpc":{}}\t\r ').encoded is None


def test_rewritten_keys_are_forwarded():
    payload = b'{"ID":1,"Rpc":{"\\u006dethod":"m","Data":{"ID":1}}} x\n{"id":2,"rpc":{}}'
    first, second = parse_commands(payload, False)
    assert first.encoded == b'{"id":1,"rpc":{"method":"m","data":{"ID":1}}}'
    assert build_payload(payload, [first, second], False) == first.encoded + b'\n{"id":2,"rpc":{}}'


def test_commands_of_another_payload_are_not_forwarded():
    with pytest.raises(ValueError, match="another payload"):
        build_payload(b'{"id":1}', parse_commands(b'{"id":2}', False), False)


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        (
            b'{"id":1,"connect":{"dict":"d","flag":3,"token":"t"}}',
            b'{"id":1,"connect":{"dict":"","flag":2,"token":"t"}}',
        ),
        (b' {"connect":{"flag" : -1},"id":1}', b' {"connect":{"flag" : -2},"id":1}'),
        (b'{"id":1,"connect":{"flag":1,"data":{"flag":1}}}', b'{"id":1,"connect":{"flag":0,"data":{"flag":1}}}'),
        (b'{"id":1,"connect":{"Dict":"d","FLAG":1}} x', b'{"id":1,"connect":{"dict":"","flag":0}}'),
        (b'{"id":1,"connect":{"flag":2,"dict":null}}', b'{"id":1,"connect":{"flag":2,"dict":null}}'),
    ],
)
def test_dictionary_compression_is_cleared(line, plain):
    assert only(line).wants_dictionary == (b"null" not in line)
    assert without_dictionary(only(line)) == plain
    assert not only(plain).wants_dictionary


def test_dictionary_compression_is_cleared_in_protobuf():
    def connect(*options: bytes) -> bytes:
        return delimited(b"\xfa\x3e\x01x" + field(4, field(1, b"t") + b"".join(options)) + field(1, 5))

    command = only(connect(field(7, 3), field(8, b"dictionary"), field(9, b"profile")), protobuf=True)
    assert command.wants_dictionary
    assert without_dictionary(command) == connect(field(7, 2), field(9, b"profile"))
    assert without_dictionary(only(connect(), protobuf=True)) == connect()


def test_only_connects_have_a_dictionary():
    for line in (b'{"id":1,"rpc":{}}', b'{"id":1,"connect":{},"connect":{}}', b"{"):
        with pytest.raises(ValueError, match="connect"):
            without_dictionary(only(line))
    assert not only(b'{"id":1,"subscribe":{"channel":"c","flag":1}}').wants_dictionary


@pytest.mark.parametrize("protobuf", [False, True])
def test_a_malformed_command_is_one(protobuf):
    assert only(malformed(protobuf), protobuf).fault == MALFORMED
    assert only(b"", protobuf).fault == MALFORMED


def test_texts_are_decoded_as_go_does():
    assert (
        only(b'{"id":1,"rpc":{"method":"\\ud83d\\ude00\\ud800\\n\xff\xe2\x82"}}').method
        == "😀\ufffd\n\ufffd\ufffd\ufffd"
    )
    assert only(delimited(field(1, 1) + field(13, field(2, b"\xff"))), protobuf=True).method == "\ufffd"


def test_commands_outlive_their_payload():
    commands = [only(b'{"id":%d,"rpc":{"method":"m%d"}}' % (n, n)) for n in range(1, 200)]
    assert [c.method for c in commands] == [f"m{n}" for n in range(1, 200)]
    with pytest.raises(TypeError, match="parse_commands"):
        Command()
