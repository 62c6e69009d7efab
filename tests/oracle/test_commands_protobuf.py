"""Commands and replies in Protobuf, beside Google's own reader and the client SDK's generated messages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.commands import MALFORMED, parse_commands
from cpro._fast.replies import parse_replies
from tests.support.protobuf import delimited, field

client_pb2 = pytest.importorskip("centrifuge.protocol.client_pb2")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KINDS = [f.name for f in client_pb2.Command.DESCRIPTOR.fields if f.name != "id"]


@st.composite
def filled(draw, message, skip: tuple[str, ...] = ()):
    """Some of the message's scalar fields set to something."""
    for f in message.DESCRIPTOR.fields:
        if f.name in skip or f.is_repeated or f.message_type or not draw(st.booleans()):
            continue
        values = {
            f.TYPE_STRING: TEXTS,
            f.TYPE_BYTES: st.binary(max_size=200),
            f.TYPE_BOOL: st.booleans(),
            f.TYPE_UINT32: st.integers(0, 2**32 - 1),
            f.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
            f.TYPE_UINT64: st.integers(0, 2**64 - 1),
            f.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        }
        setattr(message, f.name, draw(values[f.type]))
    return message


@st.composite
def commands(draw):
    command = client_pb2.Command(id=draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(KINDS))
    request = getattr(command, kind)
    request.SetInParent()
    draw(filled(request))
    if kind == "connect" and draw(st.booleans()):
        request.headers[draw(TEXTS)] = draw(TEXTS)
        request.subs[draw(TEXTS)].recover = True
    return command


def compare(command, expected) -> None:
    kinds = [kind for kind in KINDS if expected.HasField(kind)]
    assert command.id == expected.id
    if not kinds or (expected.id == 0 and kinds != ["send"]):
        assert command.kind == ("none" if expected.id else "pong")
        return
    (kind,) = kinds
    request = getattr(expected, kind)
    if kind not in ("publish", "sub_refresh"):  # `type` is newer than the SDK's messages
        assert command.kind == kind
    for name in ("channel", "token", "name", "version", "flag", "method", "recover"):
        if hasattr(request, name):
            assert getattr(command, name) == getattr(request, name), name
    assert command.data_size == len(getattr(request, "data", b""))
    if kind == "connect":
        assert command.has_headers == bool(request.headers)


@settings(max_examples=400, deadline=None)
@given(st.lists(commands(), min_size=1, max_size=4))
def test_what_an_sdk_encodes_is_read(expected):
    payload = b"".join(delimited(command.SerializeToString()) for command in expected)
    read = parse_commands(payload, True)
    assert len(read) == len(expected)
    for ours, theirs in zip(read, expected, strict=True):
        assert ours.fault == 0
        compare(ours, theirs)


@settings(max_examples=600, deadline=None)
@given(commands(), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=3))
def test_changed_bytes_mean_the_same_to_google_or_are_refused(command, changes):
    """Google's reader takes a known number with another wire type for an unknown field; Go's refuses it, as we do."""
    data = bytearray(command.SerializeToString() or b"\0")
    for at, byte in changes:
        data[at % len(data)] = byte
    try:
        theirs = client_pb2.Command.FromString(bytes(data))
    except Exception:  # Google's own kind of error; then the two need not agree
        return
    (ours,) = parse_commands(delimited(bytes(data)), True)
    if ours.fault == 0:
        compare(ours, theirs)
    elif ours.fault != MALFORMED:
        assert theirs.id == ours.id


@st.composite
def replies(draw):
    reply = client_pb2.Reply(id=draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from([f.name for f in reply.DESCRIPTOR.fields if f.name not in ("id", "push")]))
    result = getattr(reply, kind)
    result.SetInParent()
    draw(filled(result))
    if kind == "connect":
        for channel in draw(st.lists(TEXTS, max_size=3)):
            result.subs[channel].recoverable = True
    if kind in ("subscribe", "history") and draw(st.booleans()):
        result.publications.add().data = b"{}"
    return reply


@settings(max_examples=400, deadline=None)
@given(st.lists(replies(), min_size=1, max_size=4))
def test_replies_are_read(expected):
    payload = b"".join(delimited(reply.SerializeToString()) for reply in expected)
    for ours, theirs in zip(parse_replies(payload, True), expected, strict=True):
        (kind,) = [f.name for f, _ in theirs.ListFields() if f.name != "id"]
        result = getattr(theirs, kind)
        assert (ours.kind, ours.id) == (kind, theirs.id)
        if kind == "error":
            assert (ours.code, ours.reason, ours.temporary) == (result.code, result.message, result.temporary)
        if kind == "connect":
            assert sorted(ours.subs) == sorted(result.subs)
            for name in ("client", "version", "session", "node", "ping", "pong"):
                assert getattr(ours, name) == getattr(result, name)
        if kind in ("connect", "subscribe", "refresh", "sub_refresh"):
            assert (ours.expires, ours.ttl) == (result.expires, result.ttl)
        if kind == "subscribe":
            assert ours.number == result.id


PUSHES = ("pub", "join", "leave", "message", "unsubscribe", "subscribe", "connect", "disconnect", "refresh")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PUSHES), TEXTS, st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1), TEXTS, st.booleans())
def test_pushes_are_read_or_passed_over(kind, channel, number, code, reason, shuffled):
    reply = client_pb2.Reply()
    reply.push.channel, reply.push.id = channel, number
    body = getattr(reply.push, kind)
    body.SetInParent()
    if kind in ("unsubscribe", "disconnect"):
        body.code, body.reason = code, reason
    message = reply.SerializeToString()
    if shuffled:  # the channel behind the body
        last = client_pb2.Reply.FromString(message).push
        last.ClearField("channel")
        message = field(4, last.SerializeToString() + field(2, channel.encode()))
    read = parse_replies(delimited(message), True)
    if kind in PUSHES[:4]:
        assert read == []
        return
    (ours,) = read
    assert (ours.kind, ours.channel, ours.number) == (f"push_{kind}", channel, number)
    if kind in ("unsubscribe", "disconnect"):
        assert (ours.code, ours.reason) == (code, reason)
