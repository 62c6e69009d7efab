"""Unidirectional clients speak the protocol halfway; their connects are read as strictly as any."""

import json

import pytest

from cpro._fast.replies import build_connect, parse_replies
from cpro.doors.gateway.dialects import OneWay, read_connect

DEEP = b'{"data":' + b"[" * 100_000


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (b"{}", b"{}"),
        (b"null", b"{}"),
        (b' {"token":"t"} \n', b'{"token":"t"}'),
        (b'{"token":"t"} and {"more":1}', b'{"token":"t"}'),
        (b'{\n  "token": "t",\n  "data": {"a": 1}\n}', b'{   "token": "t",   "data": {"a": 1} }'),
        (b'{"TOKEN":"t"}', b'{"token":"t"}'),
        (b'{"name":"\xff\xc3\xa4","unknown":[1]}', b'{"name":"\xff\xc3\xa4","unknown":[1]}'),
        (b'{"data":{"publish":{},"connect":{}}}', b'{"data":{"publish":{},"connect":{}}}'),
    ],
)
def test_what_goes_on_to_centrifugo(said, read):
    assert read_connect(said) == read
    assert json.loads(OneWay().commands(read).decode("latin-1"))["connect"] == json.loads(read.decode("latin-1"))
    assert OneWay().request(OneWay().commands(read)) == read


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"x",
        b"[]",
        b"5",
        b'"t"',
        b'{"token":"a","token":"b"}',
        b'{"token":"a","Token":"b"}',
        '{"to\u212aen":"a"}'.encode(),
        b'{"token":5}',
        b'{"token":"a"',
        b'{},"publish":{"channel":"x"}'[2:],
        DEEP,
    ],
)
def test_what_has_no_reading_or_two(said):
    with pytest.raises(ValueError, match=r"\w"):
        read_connect(said)


def test_what_follows_a_request_never_becomes_a_command():
    assert read_connect(b'{},"publish":{"channel":"x","data":1}') == b"{}"


def test_a_dictionary_that_would_make_pushes_unreadable_is_not_asked_for():
    read = json.loads(read_connect(b'{"flag":1,"dict":"d","name":"n"}'))
    assert read.get("flag", 0) == 0
    assert not read.get("dict")
    assert read["name"] == "n"


def test_pushes_stand_for_replies_and_come_back_as_they_were():
    one_way = OneWay()
    lines = [
        b'{"connect":{"client":"c","version":"0","data":1,"subs":{"x":{}},"session":"s"}}',
        b"{}",
        b'{"channel":"x","pub":{"data":{"connect":{}}}}',
        b'{"channel":"x","unsubscribe":{"code":2500,"reason":"r"}}',
        b'{"disconnect":{"code":3012,"reason":"no pong"}}',
    ]
    replies = one_way.replies(b"\n".join(lines) + b"\n")
    assert one_way.content(replies) == b"\n".join(lines)
    said = parse_replies(replies, False)
    assert [(one.kind, one.id, one.code) for one in said if one.kind != "ping"] == [
        ("connect", 1, 0),
        ("push_unsubscribe", 0, 2500),
        ("push_disconnect", 0, 3012),
    ]
    patched = replies[: said[0].start] + build_connect(said[0], data=b'{"a":1}') + replies[said[0].end :]
    assert json.loads(one_way.content(patched).split(b"\n")[0])["connect"]["data"] == {"a": 1}
    assert [one_way.may_matter(line) for line in lines] == [False, False, False, True, True]


def test_a_refusal_is_a_disconnect():
    assert json.loads(OneWay().refusal(b"")) == {"disconnect": {"code": 3013, "reason": "too many requests"}}
