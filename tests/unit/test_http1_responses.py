"""Responses: where they end, what is skipped, and what makes a connection unusable."""

import pytest

from cpro._fast.http1 import Response, ResponseParser
from cpro.errors import ProtocolError

OK = b"HTTP/1.1 200 OK\r\n"


def pieces(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


def read(data, *, is_head=False, eof=False, size=10**6, limits=(1000, 100)):
    parser = ResponseParser(*limits)
    parser.expect(is_head)
    response = None
    for piece in pieces(data, size):
        parser.feed(piece)
        response = parser.next_response() or response
    if eof:
        response = parser.feed_eof() or response
    return response, parser


def both_ways(data, **options):
    """Read at once and byte by byte, with the same result."""
    results = []
    for size in (10**6, 1):
        response, parser = read(data, size=size, **options)
        results.append((response.status, response.keep_alive, response.headers(), response.body))
    assert results[0] == results[1]
    return response, parser


@pytest.mark.parametrize(
    ("data", "body", "keep_alive"),
    [
        (OK + b"Content-Length: 2\r\n\r\n{}", b"{}", True),
        (OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}", b"{}", False),
        (OK + b"Content-Length: 0\r\n\r\n", b"", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;a\r\n{\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n", b"{}", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"{}", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", b"{}", True),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 \xe9\t!\r\nContent-Length: 0\r\n\r\n", b"", True),
    ],
)
def test_the_body_ends_where_the_head_says(data, body, keep_alive):
    response, parser = both_ways(data)
    assert (response.status, response.body, response.keep_alive) == (200, body, keep_alive)
    assert parser.started
    assert not parser.has_excess


@pytest.mark.parametrize(
    ("status", "is_head", "framing"),
    [
        (b"204", False, b""),
        (b"204", False, b"Content-Length: 0\r\n"),
        (b"304", False, b"Content-Length: 500\r\n"),
        (b"304", False, b"Transfer-Encoding: chunked\r\n"),
        (b"200", True, b"Content-Length: 5000\r\n"),
        (b"200", True, b""),
    ],
)
def test_some_responses_have_no_body_whatever_the_head_says(status, is_head, framing):
    response, parser = both_ways(b"HTTP/1.1 " + status + b" x\r\n" + framing + b"\r\n", is_head=is_head)
    assert (response.status, response.body, response.keep_alive) == (int(status), b"", True)
    assert not parser.has_excess


def test_a_body_without_length_lasts_until_the_peer_closes():
    data = OK + b"X: y\r\n\r\n{}\r\n"
    for size in (10**6, 1):
        response, parser = read(data, size=size)
        assert response is None
        response = parser.feed_eof()
        assert (response.body, response.keep_alive, response.header(b"x")) == (b"{}\r\n", False, b"y")


def test_a_body_without_length_may_be_empty():
    response, _ = both_ways(OK + b"\r\n", eof=True)
    assert (response.body, response.keep_alive) == (b"", False)


def test_interim_responses_are_skipped():
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    response, _ = both_ways(interim + OK + b"Content-Length: 1\r\n\r\na")
    assert (response.status, response.body) == (200, b"a")
    assert response.header(b"link") is None


def test_the_next_response_follows_on_the_same_connection():
    parser = ResponseParser(1000, 100)
    for is_head in (False, True, False):
        parser.expect(is_head)
        assert not parser.started
        parser.feed(OK + b"Content-Length: 1\r\n\r\n" + (b"" if is_head else b"a"))
        assert parser.next_response().body == (b"" if is_head else b"a")
    assert not parser.has_excess


@pytest.mark.parametrize("late", [False, True])
def test_bytes_behind_a_response_are_excess_and_spoil_the_connection(late):
    parser = ResponseParser(1000, 100)
    first = OK + b"Content-Length: 1\r\n\r\na"
    parser.feed(first if late else first + first)
    assert parser.next_response().body == b"a"
    if late:
        parser.feed(b"H")
    assert parser.has_excess
    assert parser.next_response() is None
    with pytest.raises(ProtocolError):
        parser.expect()


def test_an_unfinished_response_cannot_be_passed_over():
    parser = ResponseParser(1000, 100)
    parser.feed(OK)
    with pytest.raises(ProtocolError):
        parser.expect()


def test_closing_without_a_byte_is_no_response_and_no_fault():
    parser = ResponseParser(1000, 100)
    assert parser.feed_eof() is None
    parser.expect()
    assert parser.feed_eof() is None
    assert not parser.started


def test_closing_after_a_complete_response_changes_nothing():
    response, parser = read(OK + b"Content-Length: 1\r\n\r\na")
    assert response.body == b"a"
    assert parser.feed_eof() is None


def test_closing_completes_what_was_fed_but_not_yet_taken():
    parser = ResponseParser(1000, 100)
    parser.feed(OK + b"Content-Length: 1\r\n\r\na")
    assert parser.feed_eof().body == b"a"


@pytest.mark.parametrize(
    "data",
    [
        b"H",
        OK,
        OK + b"Content-Length: 2\r\n\r\na",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_a_response_cut_off_by_closing_is_a_fault(data):
    with pytest.raises(ProtocolError, match="truncated") as fault:
        read(data, eof=True)
    assert fault.value.status == 502


REFUSED = {
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "empty_line_first": b"\r\n",
    "http_2": b"HTTP/2.0 200 OK\r\n",
    "http_1_2": b"HTTP/1.2 200 OK\r\n",
    "http_0_9": b"hello\r\n",
    "two_digit_status": b"HTTP/1.1 20 OK\r\n",
    "four_digit_status": b"HTTP/1.1 2000 OK\r\n",
    "low_status": b"HTTP/1.1 099 OK\r\n",
    "signed_status": b"HTTP/1.1 +20 OK\r\n",
    "two_spaces": b"HTTP/1.1  200 OK\r\n",
    "tab_after_status": b"HTTP/1.1 200\tOK\r\n",
    "bare_lf": b"HTTP/1.1 200 OK\n",
    "control_in_reason": b"HTTP/1.1 200 \0",
    "folded": OK + b"X: 1\r\n 2\r\n",
    "two_lengths": OK + b"Content-Length: 1\r\nContent-Length: 1\r\n",
    "length_and_chunked": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "gzip_coding": OK + b"Transfer-Encoding: gzip\r\n",
    "chunked_on_1_0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bad_chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nx",
    "head_too_large": OK + b"X: " + b"a" * 1000,
    "body_too_large": OK + b"Content-Length: 101\r\n\r\n",
    "chunk_too_large": OK + b"Transfer-Encoding: chunked\r\n\r\n65\r\n",
    "endless_too_large": OK + b"\r\n" + b"a" * 101,
}


@pytest.mark.parametrize("size", [1, 10**6])
@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refused(data, size):
    with pytest.raises(ProtocolError) as fault:
        read(data, size=size)
    assert fault.value.status == 502


def test_a_body_as_large_as_the_limit_is_taken():
    assert len(both_ways(OK + b"Content-Length: 100\r\n\r\n" + b"a" * 100)[0].body) == 100
    assert len(both_ways(OK + b"\r\n" + b"a" * 100, eof=True)[0].body) == 100


def test_an_endless_body_byte_by_byte_is_linear_work():
    _, parser = read(OK + b"\r\n" + b"a" * 50_000, size=1, limits=(1000, 50_000))
    assert parser.work_bytes < 6 * 50_000


def test_responses_cannot_be_made_by_hand():
    with pytest.raises(TypeError):
        Response()
