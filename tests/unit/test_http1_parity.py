"""The compiled request parser sees what its plain-Python twin sees, however the input is cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.http1 import drive, read_requests

LIMITS = st.sampled_from([(65536, 1 << 20), (200, 64), (90, 10), (40, 5)])

tokens = st.text("abzAZ019-_!~", min_size=1, max_size=8).map(str.encode)
blanks = st.sampled_from([b"", b" ", b"\t", b" \t "])
cases = st.sampled_from([bytes.lower, bytes.upper, bytes.title])
values = st.binary(max_size=20).map(lambda v: bytes(c for c in v if c >= 0x20 and c != 0x7F))
targets = st.sampled_from(
    [
        b"/",
        b"/centrifugo/publish",
        b"/a?b=c?d",
        b"/?",
        b"//x",
        b"http://h",
        b"HTTPS://h:1/x?y",
        b"http://h?q",
        b"http://h#q",
    ]
)
methods = st.sampled_from([b"POST", b"POST", b"POST", b"GET", b"OPTIONS", b"x!"])
starts = st.one_of(
    st.builds(b"%b %b".__mod__, st.tuples(methods, targets)),
    st.sampled_from([b"OPTIONS *", b"CONNECT h:80", b"CONNECT [::1]:1", b"POST *", b"POST h:80", b"CONNECT /"]),
)
hosts = st.sampled_from([b"h", b"h:80", b"", b"[::1]:9", b"a%20b", b"1.2.3.4"])


harmless = st.sampled_from(
    [(b"Connection", b"close"), (b"Connection", b"x, Keep-Alive ,"), (b"Expect", b"100-continue"), (b"X", b"\t")]
)
harmful = st.sampled_from(
    [(b"Expect", b"x"), (b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked"), (b"Host", b"h"), (b"Host", b"/")]
)


@st.composite
def header_lines(draw, framing):
    lines = [(b"Host", draw(hosts)), *framing]
    lines += draw(st.lists(st.tuples(tokens, values), max_size=4))
    lines += draw(st.lists(harmless, max_size=2))
    lines += [draw(harmful)] if draw(st.integers(0, 9)) == 9 else []
    lines = draw(st.permutations(lines))
    return b"".join(draw(cases)(n) + b":" + draw(blanks) + v + draw(blanks) + b"\r\n" for n, v in lines)


@st.composite
def chunked_bodies(draw):
    extension = st.sampled_from([b"", b"", b";a", b" ;a=b", b'; a = "q\\"\t;"', b";a;b=c"])
    out = b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4)):
        out += draw(st.sampled_from([b"", b"0", b"000"])) + b"%x" % len(data) + draw(extension)
        out += b"\r\n" + data + b"\r\n"
    out += draw(st.sampled_from([b"0", b"00"])) + draw(extension) + b"\r\n"
    out += b"".join(n + b": " + v + b"\r\n" for n, v in draw(st.lists(st.tuples(tokens, values), max_size=2)))
    return out + b"\r\n"


@st.composite
def requests(draw):
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    body, framing = b"", []
    if kind == "length":
        body = draw(st.binary(max_size=30))
        framing = [(b"Content-Length", draw(st.sampled_from([b"%d", b"0%d", b"000%d"])) % len(body))]
    elif kind == "chunked":
        body, framing = draw(chunked_bodies()), [(b"Transfer-Encoding", draw(cases)(b"chunked"))]
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]))
    lead = draw(st.sampled_from([b"", b"", b"\r\n"]))
    line = draw(starts) + b" " + version + b"\r\n"
    return lead + line + draw(header_lines(framing)) + b"\r\n" + body


telling = st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b";", b"\0", b"\x7f", b"\x80", b"0", b"f", b","])


@st.composite
def mutated(draw, data):
    """A few bytes replaced, inserted or removed, most often by bytes that mean something to a parser."""
    out = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(out)))
        new = draw(telling)
        out[at : at + draw(st.integers(0, 2))] = new if draw(st.booleans()) else b""
    return bytes(out[: draw(st.integers(0, len(out)))] if draw(st.booleans()) else out)


@st.composite
def cut(draw, data):
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=5)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def agree(data, pieces, limits):
    expected = read_requests(data, *limits)
    assert drive([data], *limits) == expected
    assert drive(pieces, *limits) == expected
    assert drive([data[i : i + 1] for i in range(len(data))], *limits) == expected
    return expected


@settings(max_examples=250, deadline=None)
@given(st.data(), st.lists(requests(), min_size=1, max_size=3), LIMITS)
def test_pipelined_requests_read_the_same_however_cut(data, several, limits):
    stream = b"".join(several)
    agree(stream, data.draw(cut(stream)), limits)


@settings(max_examples=400, deadline=None)
@given(st.data(), requests(), LIMITS)
def test_damaged_requests_fail_or_pass_the_same_however_cut(data, request, limits):
    stream = data.draw(mutated(request + b"POST / HTTP/1.1\r\nHost: h\r\n\r\n"))
    agree(stream, data.draw(cut(stream)), limits)


@settings(max_examples=150, deadline=None)
@given(st.data(), chunked_bodies(), LIMITS)
def test_damaged_chunked_bodies_fail_or_pass_the_same_however_cut(data, body, limits):
    stream = b"POST / HTTP/1.1\r\nHost:h\r\nTransfer-Encoding:chunked\r\n\r\n" + data.draw(mutated(body))
    agree(stream, data.draw(cut(stream)), limits)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.text(" \r\n\t:;/*01aHTP.POST\x00\x7fé", max_size=60).map(lambda s: s.encode("latin-1")), LIMITS)
def test_noise_is_refused_the_same_however_cut(data, stream, limits):
    agree(stream, data.draw(cut(stream)), limits)


def test_every_cut_of_a_pipelined_pair_reads_the_same():
    stream = (
        b"\r\nPOST http://h/a?b HTTP/1.1\r\nHost: h\r\nX: \t y \r\nTransfer-Encoding: chunked\r\n\r\n"
        b'3;a="b"\r\nabc\r\n00\r\nT: 1\r\n\r\n'
        b"POST /x HTTP/1.0\r\nContent-Length: 05\r\nConnection: keep-alive\r\n\r\nhello"
    )
    expected = agree(stream, [stream], (65536, 100))
    assert [s.body for s in expected.seen] == [b"abc", b"hello"]
    assert expected.end == "idle"
    for i in range(len(stream)):
        assert drive([stream[:i], stream[i:]], 65536, 100) == expected
