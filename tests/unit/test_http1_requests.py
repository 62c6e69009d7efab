"""Requests that are accepted, what is read from them, and the limits."""

import sys

import pytest

from cpro._fast.http1 import BODY, HEAD, IDLE, Request, RequestParser
from cpro.errors import ProtocolError

LIMITS = (65536, 1 << 20)
GO = (
    b"POST /centrifugo/publish HTTP/1.1\r\nHost: app:3000\r\nUser-Agent: Go-http-client/1.1\r\n"
    b"Content-Length: 2\r\nContent-Type: application/json\r\nX-Real-Ip: 10.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n{}"
)
BARE = b"POST / HTTP/1.1\r\nHost: h\r\n\r\n"


def read_one(data, limits=LIMITS):
    parser = RequestParser(*limits)
    parser.feed(data)
    return parser.next_request()


def status_of(data, limits=LIMITS):
    with pytest.raises(ProtocolError) as fault:
        read_one(data, limits)
    return fault.value.status


def with_head(*lines, line=b"POST / HTTP/1.1", host=b"Host: h"):
    return b"\r\n".join([line, *([host] if host else []), *lines, b"", b""])


def test_a_centrifugo_request_is_read_in_full():
    request = read_one(GO)
    assert request.is_post
    assert (request.method, request.target, request.path, request.query) == (
        b"POST",
        b"/centrifugo/publish",
        b"/centrifugo/publish",
        b"",
    )
    assert (request.minor_version, request.keep_alive, request.body) == (1, True, b"{}")
    assert request.header(b"x-real-ip") == b"10.0.0.1"
    assert request.header(b"x-real") is None
    assert request.headers()[1] == (b"User-Agent", b"Go-http-client/1.1")


@pytest.mark.parametrize(
    ("line", "path", "query"),
    [
        (b"POST /a/b HTTP/1.1", b"/a/b", b""),
        (b"POST /a?b=c?d HTTP/1.1", b"/a", b"b=c?d"),
        (b"POST /a? HTTP/1.1", b"/a", b""),
        (b"POST //a HTTP/1.1", b"//a", b""),
        (b"POST http://h:80/a?b HTTP/1.1", b"/a", b"b"),
        (b"POST HTTPS://[::1]:443/a HTTP/1.1", b"/a", b""),
        (b"POST http://h HTTP/1.1", b"/", b""),
        (b"POST http://h?b HTTP/1.1", b"/", b"b"),
        (b"OPTIONS * HTTP/1.1", b"*", b""),
        (b"CONNECT h:443 HTTP/1.1", b"", b""),
        (b"GET /a HTTP/1.0", b"/a", b""),
        (b"post /a HTTP/1.1", b"/a", b""),
    ],
)
def test_target_forms_are_split_into_path_and_query(line, path, query):
    request = read_one(with_head(line=line))
    assert (request.path, request.query) == (path, query)
    assert request.target == line.split(b" ")[1]
    assert request.is_post is line.startswith(b"POST")


@pytest.mark.parametrize(
    "host", [b"h", b"h:8080", b"h:", b"", b"1.2.3.4:1", b"[::1]", b"[::1]:80", b"a_b.c-d", b"a%20b"]
)
def test_plausible_hosts_are_accepted(host):
    assert read_one(with_head(host=b"Host: " + host)).header(b"host") == host


def test_white_space_around_values_is_not_part_of_them():
    request = read_one(with_head(b"A: \t x y\t ", b"B:", b"C: \t ", b"D:\xe9"))
    assert [v for _, v in request.headers()] == [b"h", b"x y", b"", b"", b"\xe9"]


def test_header_gives_the_first_of_several_values_whatever_its_case():
    request = read_one(with_head(b"X-A: 1", b"x-a: 2", b"X-a: 3"))
    assert request.header(b"x-a") == b"1"
    assert request.header_count(b"x-a") == 3
    assert request.header_count(b"x-b") == 0


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ((b"Content-Length: 5",), b"hello"),
        ((b"content-length:\t00000000000000000000000005 ",), b"hello"),
        ((b"Transfer-Encoding: chunked",), b"5\r\nhello\r\n0\r\n\r\n"),
        ((b"transfer-encoding: CHUNKED",), b"0000000000000000000003\r\nhel\r\n2\r\nlo\r\n00\r\n\r\n"),
        ((b"Transfer-Encoding: chunked",), b'5 ; a = "q\\";\t" ;b\r\nhello\r\n0;last\r\n\r\n'),
        ((b"Transfer-Encoding: chunked",), b"5\r\nhello\r\n0\r\nTrailer: x\r\nContent-Length: 9\r\n\r\n"),
    ],
)
def test_bodies_are_read_by_length_and_by_chunks(framing, body):
    assert read_one(with_head(*framing) + body).body == b"hello"


def test_a_request_without_length_has_no_body():
    assert read_one(BARE).body == b""


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1", (), True),
        (b"0", (), False),
        (b"1", (b"Connection: close",), False),
        (b"1", (b"Connection: keep-alive, CLOSE",), False),
        (b"1", (b"Connection: x", b"Connection: Close"), False),
        (b"1", (b"Connection: closed",), True),
        (b"0", (b"Connection: Keep-Alive",), True),
        (b"0", (b"Connection: ,x ,\tkeep-alive",), True),
        (b"0", (b"Connection: keep-alive", b"Connection: close"), False),
    ],
)
def test_the_connection_is_kept_as_version_and_options_say(version, connection, keep_alive):
    assert read_one(with_head(*connection, line=b"POST / HTTP/1." + version)).keep_alive is keep_alive


def test_pipelined_requests_come_out_in_order_and_leave_nothing():
    parser = RequestParser(*LIMITS)
    parser.feed(GO + b"\r\n" + BARE + GO[:50])
    assert [parser.next_request().body, parser.next_request().path, parser.next_request()] == [b"{}", b"/", None]
    parser.feed(GO[50:])
    assert parser.next_request().body == b"{}"
    assert (parser.state, parser.buffered_bytes) == (IDLE, 0)


def test_a_request_outlives_its_parser_and_later_input():
    parser = RequestParser(*LIMITS)
    for byte in GO[:-1]:
        parser.feed(bytes([byte]))
        assert parser.next_request() is None
    parser.feed(GO[-1:] + GO[:30])
    first = parser.next_request()
    parser.feed(GO[30:].replace(b"{}", b"[]"))
    second = parser.next_request()
    del parser
    assert (first.body, second.body) == (b"{}", b"[]")
    assert first.headers() == second.headers()


def test_input_is_held_by_its_request_and_not_by_an_idle_parser():
    data = bytes(bytearray(GO))
    before = sys.getrefcount(data)
    parser = RequestParser(*LIMITS)
    parser.feed(data)
    request = parser.next_request()
    assert (parser.state, sys.getrefcount(data)) == (IDLE, before + 1)
    assert request.body == b"{}"
    del request
    assert sys.getrefcount(data) == before


def test_a_failed_parser_lets_go_of_its_input():
    data = bytes(bytearray(GO.replace(b":", b" :")))
    before = sys.getrefcount(data)
    parser = RequestParser(*LIMITS)
    parser.feed(data)
    with pytest.raises(ProtocolError):
        parser.next_request()
    assert sys.getrefcount(data) == before


def test_more_headers_than_fit_inline_are_all_kept():
    lines = [b"X-%d: %d" % (i, i) for i in range(255)]
    request = read_one(with_head(*lines))
    assert request.header(b"x-254") == b"254"
    assert len(request.headers()) == 256


def test_state_follows_the_input():
    parser = RequestParser(*LIMITS)
    states = []
    for piece in (b"", b"\r", b"\n", b"P", with_head(b"Content-Length: 2")[1:], b"{", b"}\r\n", b"G"):
        parser.feed(piece)
        parser.next_request()
        states.append(parser.state)
    assert states == [IDLE, IDLE, IDLE, HEAD, BODY, BODY, IDLE, HEAD]


def test_state_is_right_before_the_input_is_looked_at():
    parser = RequestParser(*LIMITS)
    parser.feed(b"\r\n")
    assert (parser.state, parser.buffered_bytes) == (IDLE, 0)
    parser.feed(b"G")
    assert (parser.state, parser.buffered_bytes) == (HEAD, 1)


def test_a_dead_parser_stays_dead_and_keeps_nothing():
    parser = RequestParser(*LIMITS)
    parser.feed(b"\n" + GO)
    for _ in range(2):
        with pytest.raises(ProtocolError):
            parser.next_request()
        parser.feed(GO)
    assert parser.buffered_bytes == 0


def test_requests_cannot_be_made_by_hand():
    with pytest.raises(TypeError):
        Request()


@pytest.mark.parametrize("data", [None, bytearray(b"x"), "x"])
def test_only_bytes_can_be_fed(data):
    with pytest.raises(TypeError):
        RequestParser(*LIMITS).feed(data)


@pytest.mark.parametrize("limits", [(0, 1), (-1, 1), (1 << 31, 1), (10, -1), (10, 1 << 61)])
def test_impossible_limits_are_refused(limits):
    with pytest.raises(ValueError, match="must be between"):
        RequestParser(*limits)


# -- Expect: 100-continue


def after_head(*lines, version=b"1", body=b"", limits=LIMITS):
    parser = RequestParser(*limits)
    parser.feed(with_head(*lines, line=b"POST / HTTP/1." + version))
    parser.next_request()
    if body:
        parser.feed(body)
    return parser


@pytest.mark.parametrize("framing", [b"Content-Length: 3", b"Transfer-Encoding: chunked"])
def test_a_waiting_sender_is_told_to_continue_once(framing):
    parser = after_head(b"Expect: 100-Continue", framing)
    assert [parser.take_continue(), parser.take_continue()] == [True, False]
    parser.feed(b"abc" if framing.startswith(b"C") else b"3\r\nabc\r\n0\r\n\r\n")
    assert parser.next_request().body == b"abc"


@pytest.mark.parametrize(
    "parser",
    [
        after_head(b"Content-Length: 3"),
        after_head(b"Expect: 100-continue"),
        after_head(b"Expect: 100-continue", b"Content-Length: 0"),
        after_head(b"Expect: 100-continue", b"Content-Length: 3", version=b"0"),
        after_head(b"Expect: 100-continue", b"Content-Length: 3", body=b"a"),
        after_head(b"Expect: 100-continue", b"Transfer-Encoding: chunked", body=b"3"),
        RequestParser(*LIMITS),
    ],
)
def test_nobody_else_is_told_to_continue(parser):
    assert parser.take_continue() is False


@pytest.mark.parametrize(
    "lines", [(b"Expect: x",), (b"Expect: 100-continue, x",), (b"Expect: 100-continue", b"Expect:")]
)
def test_unknown_expectations_are_417(lines):
    assert status_of(with_head(*lines)) == 417


# -- limits


@pytest.mark.parametrize("piece", [1, 7, 10**6])
@pytest.mark.parametrize(("slack", "status"), [(1, None), (0, None), (-1, 431)])
def test_the_head_may_be_as_large_as_the_limit(piece, slack, status):
    head = with_head(b"X: " + b"a" * 50)
    parser = RequestParser(len(head) + slack, 0)
    seen = None
    try:
        for i in range(0, len(head), piece):
            parser.feed(head[i : i + piece])
            seen = parser.next_request()
    except ProtocolError as fault:
        seen = fault.status
    assert seen == status if status else seen.path == b"/"


def test_an_endless_line_is_refused_at_the_limit():
    parser = RequestParser(100, 0)
    parser.feed(b"P" * 100)
    assert parser.next_request() is None
    parser.feed(b"P")
    with pytest.raises(ProtocolError, match="head is too large"):
        parser.next_request()


def test_one_header_more_than_256_is_431():
    lines = [b"X: 1"] * 255
    assert read_one(with_head(*lines)).header_count(b"x") == 255
    assert status_of(with_head(*lines, b"X: 1")) == 431


def test_one_connection_option_more_than_256_is_431():
    assert read_one(with_head(b"Connection: " + b"," * 255))
    assert status_of(with_head(b"Connection: " + b"," * 256)) == 431
    assert status_of(with_head(b"Connection: " + b"," * 200, b"Connection: " + b"," * 200)) == 431


@pytest.mark.parametrize("limit", [9, 10, 11])
def test_a_declared_length_over_the_limit_is_413_at_once(limit):
    head = with_head(b"Content-Length: 10")
    if limit < 10:
        assert status_of(head, (1000, limit)) == 413
    else:
        assert read_one(head + b"x" * 10, (1000, limit)).body == b"x" * 10


@pytest.mark.parametrize("limit", [9, 10, 11])
def test_chunks_over_the_limit_are_413_as_soon_as_announced(limit):
    head = with_head(b"Transfer-Encoding: chunked") + b"4\r\nxxxx\r\n6\r\n"
    if limit < 10:
        assert status_of(head, (1000, limit)) == 413
    else:
        assert read_one(head + b"xxxxxx\r\n0\r\n\r\n", (1000, limit)).body == b"x" * 10


@pytest.mark.parametrize("length", [b"999999999999999999", b"0000999999999999999999"])
def test_the_longest_length_is_413_and_not_an_overflow(length):
    assert status_of(with_head(b"Content-Length: " + length)) == 413


def test_the_largest_chunk_size_is_413_and_not_an_overflow():
    assert status_of(with_head(b"Transfer-Encoding: chunked") + b"F" * 16 + b"\r\n") == 413


@pytest.mark.parametrize(
    "tail",
    [
        b"3;" + b"a" * 200,
        b"0" * 200,
        b"3" + b" " * 200,
        b"1;aa\r\nx\r\n" * 100,
        b"0\r\nX: " + b"a" * 200,
        b"0\r\n" + b"X:1\r\n" * 100,
    ],
)
def test_padding_in_a_chunked_body_has_the_head_limit_too(tail):
    assert status_of(with_head(b"Transfer-Encoding: chunked") + tail, (100, 1000)) == 431


def test_what_is_announced_is_not_allocated():
    parser = after_head(b"Content-Length: 1000000000", limits=(1000, 1 << 40))
    parser.feed(b"x")
    parser.feed(b"x")
    assert parser.buffered_bytes < 100


# -- linear work


def work_per_byte(data, piece):
    parser = RequestParser(1 << 20, 1 << 20)
    request = None
    for i in range(0, len(data), piece):
        assert request is None
        parser.feed(data[i : i + piece])
        request = parser.next_request()
    assert request is not None
    return parser.work_bytes / len(data)


@pytest.mark.parametrize("piece", [1, 10, 1000])
@pytest.mark.parametrize("size", [1_000, 60_000])
@pytest.mark.parametrize("kind", ["line", "headers", "body", "chunk", "chunks"])
def test_work_stays_linear_however_small_the_pieces(kind, size, piece):
    data = {
        "line": with_head(line=b"POST /" + b"a" * size + b" HTTP/1.1"),
        "headers": with_head(*[b"X: " + b"a" * (size // 250)] * 250),
        "body": with_head(b"Content-Length: %d" % size) + b"a" * size,
        "chunk": with_head(b"Transfer-Encoding: chunked") + b"%x\r\n" % size + b"a" * size + b"\r\n0\r\n\r\n",
        "chunks": with_head(b"Transfer-Encoding: chunked") + b"1\r\na\r\n" * (size // 6) + b"0\r\n\r\n",
    }[kind]
    assert work_per_byte(data, piece) < 6


def test_input_in_one_piece_is_not_copied():
    assert work_per_byte(with_head(b"Content-Length: 50000") + b"a" * 50000, 10**6) == 0
