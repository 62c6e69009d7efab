"""What `parse_commands` makes of JSON, beside the twin: everything means the same to both, or is refused."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.commands import BAD_REQUEST, parse_commands
from tests.oracle.commands import REQUESTS, SHAPE, compare


def escaped(key: str, at: int) -> str:
    at %= len(key)
    return f"{key[:at]}\\u{ord(key[at]):04x}{key[at + 1 :]}"


SPELLINGS = (
    lambda key, at: key,
    lambda key, at: key,
    lambda key, at: key,
    lambda key, at: key.upper(),
    lambda key, at: key.title(),
    escaped,
    lambda key, at: escaped(key.upper(), at),
    lambda key, at: key.replace("s", "\u017f"),
    lambda key, at: key.replace("s", "\u017f", 1),
    lambda key, at: key.replace("s", "\\u017f").replace("k", "\\u212A"),
    lambda key, at: key.upper().replace("K", "\u212a", 1).replace("S", "\u017f", 1),
    lambda key, at: key + "x",
)
TEXTS = st.sampled_from(['""', '"news"', '"a\\"b"', '"\\u0061\\ud83d\\ude00"', '"\\ud800"', '"ж"', '"\\/\\n"'])
NUMBERS = st.sampled_from(
    ["0", "1", "2", "-1", "-0", "01", "1.0", "1e1", "4294967295", "4294967296", "2147483648", "9" * 19, "-2147483648"]
)
VALUES = st.one_of(
    TEXTS, NUMBERS, st.sampled_from(["null", "true", "false", "{}", "[]", '{"a":[1,{}]}', "nullx", "", "[1,]", '{"a"}'])
)
SPACES = st.sampled_from(["", "", "", "", " ", "\t\r"])


@st.composite
def spelt(draw, key: str) -> str:
    return draw(st.sampled_from(SPELLINGS))(key, draw(st.integers(0, 20)))


def fitting(kind: object):
    if kind is str:
        return TEXTS
    if kind is bool:
        return st.sampled_from(["true", "false"])
    if isinstance(kind, tuple):
        return NUMBERS
    return VALUES


@st.composite
def objects(draw, shape: dict, max_size: int = 4) -> str:
    members = []
    for key in draw(st.lists(st.sampled_from([*shape, "other"]), max_size=max_size)):
        kind = shape.get(key)
        value = draw(st.one_of(st.just("null"), objects(kind)) if isinstance(kind, dict) else fitting(kind))
        if draw(st.integers(0, 30)) == 0:
            value = draw(VALUES)
        members.append(f'{draw(SPACES)}"{draw(spelt(key))}"{draw(SPACES)}:{draw(SPACES)}{value}{draw(SPACES)}')
    return "{" + ",".join(members) + "}"


@st.composite
def commands(draw) -> str:
    """Mostly one request with an id, spelt somehow; sometimes anything."""
    if draw(st.booleans()):
        return draw(objects(SHAPE))
    kind = draw(st.sampled_from(list(REQUESTS)))
    members = [
        f'"{draw(spelt("id"))}":{draw(st.sampled_from(["0", "1", "7", "null"]))}',
        f'"{draw(spelt(kind))}":{draw(objects(REQUESTS[kind]))}',
        *draw(st.sampled_from([(), (), ('"publish":null',), ('"RPC":{"method":"m"}',), ('"ID":3',)])),
    ]
    return "{" + ",".join(draw(st.permutations(members))) + "}"


LINES = st.one_of(
    commands(), commands(), commands(), st.sampled_from(["", " ", "{}", "null", "nullx", "[]", "{} x", "1"])
)


@settings(max_examples=600, deadline=None)
@given(st.lists(LINES, max_size=3), st.booleans())
def test_every_line_means_the_same_or_is_refused(lines, ends):
    compare(("\n".join(lines) + "\n" * ends).encode())


@settings(max_examples=300, deadline=None)
@given(commands(), st.integers(0, 400), st.integers(0, 255))
def test_a_byte_changed_means_the_same_or_is_refused(line, at, byte):
    data = bytearray(line.encode())
    data[at % len(data)] = byte
    compare(bytes(data))


def test_every_key_in_every_spelling_is_counted_or_refused():
    for kind in REQUESTS:
        for spelling in SPELLINGS[:-1]:
            for at in range(len(kind)):
                line = f'{{"id":7,"{spelling(kind, at)}":{{"channel":"c"}}}}'.encode()
                compare(line)
                (command,) = parse_commands(line, False)
                assert command.kind == kind or command.fault == BAD_REQUEST


def test_what_an_sdk_sends_is_forwarded_byte_for_byte():
    for kind in REQUESTS:
        line = json.dumps({"id": 7, kind: {"channel": "c", "data": {"Id": 1, "id": 2, "publish": {}}}}).encode()
        (command,) = parse_commands(line, False)
        assert (command.fault, command.encoded, command.kind) == (0, None, kind)
