"""Contract 9 from outside: what HTTP cpro accepts, and how it answers what it doesn't."""

import socket
import time

import pytest

from tests.support.service import Service
from tests.support.wire import Wire, post

BODY = b'{"client":"c1","user":"42","channel":"news"}'
HEAD = b"POST /centrifugo/publish HTTP/1.1\r\nHost: x\r\n"
OK = b'{"result":{}}'
MAX_BODY = 1000


@pytest.fixture(scope="module")
def cpro(tmp_path_factory):
    settings = {"proxy": {"without_upstream": "allow"}, "max_body_size": MAX_BODY}
    with Service(tmp_path_factory.mktemp("edges"), settings) as service:
        yield service


@pytest.fixture
def wire(cpro):
    with Wire(cpro.proxy) as wire:
        yield wire


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(BODY),
        b"\r\n" + post(BODY),
        post(BODY, path=b"/centrifugo/publish?a=b"),
        post(BODY, path=b"http://any.host:8001/centrifugo/publish"),
        HEAD + b"Content-Length: 000%d\r\n\r\n" % len(BODY) + BODY,
        HEAD + b"Content-Length: \t %d \t\r\n\r\n" % len(BODY) + BODY,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY[:7], BODY[7:]) + b"\r\n",
        HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + chunked(BODY) + b"X-Sum: 1\r\nX-Other: 2\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x;name=value;q=\"x\"\r\n%b\r\n0;last\r\n\r\n" % (len(BODY), BODY),
        b"POST /centrifugo/publish HTTP/1.0\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n" % len(BODY) + BODY,
    ],
)  # fmt: skip
def test_correct_requests_are_answered_and_the_connection_stays(wire, request_bytes):
    for _ in range(2):
        status, headers, body = wire.send(request_bytes).answer()
        assert (status, body) == (200, OK)
        assert headers[b"content-length"] == b"%d" % len(OK)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /centrifugo/publish HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
        post(BODY, headers=b"Connection: close\r\n"),
    ],
)
def test_a_connection_that_should_close_closes_after_its_answer(wire, request_bytes):
    status, headers, body = wire.send(request_bytes).answer()
    assert (status, body) == (200, OK)
    assert headers[b"connection"] == b"close"
    assert wire.is_closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"POST /centrifugo/publish\r\n\r\n",
        b"POST /centrifugo/publish HTTP/2.0\r\nHost: x\r\n\r\n",
        b"POST  /centrifugo/publish HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /centrifugo/publish HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Host: y\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
        HEAD + b"Content-Length: +2\r\n\r\n{}",
        HEAD + b"Content-Length: 0x2\r\n\r\n{}",
        HEAD + b"Content-Length: \r\n\r\n{}",
        HEAD + b"Content-Length: 99999999999999999999999999\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /centrifugo/publish HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"X-A: 1\r\n continued\r\n\r\n",
        HEAD + b"X-A: 1\n\r\n",
        HEAD + b"X-A: 1\rX-B: 2\r\n\r\n",
        HEAD + b"X-A: a\x00b\r\n\r\n",
        HEAD + b"X A: 1\r\n\r\n",
        HEAD + b": 1\r\n\r\n",
        b"POST /centrifugo/pub\x7flish HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
    ],
)  # fmt: skip
def test_malformed_requests_are_400_and_close(wire, request_bytes):
    status, headers, body = wire.send(request_bytes).answer()
    assert (status, body) == (400, b"")
    assert headers[b"content-length"] == b"0"
    assert wire.is_closed()


def test_a_head_beyond_64_kib_is_431_and_closes(wire):
    assert wire.send(HEAD + b"X-Long: " + b"x" * 70_000).answer()[0] == 431
    assert wire.is_closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"x" * MAX_BODY, b"x"),
    ],
)
def test_a_body_over_the_limit_is_413_and_closes(wire, request_bytes):
    assert wire.send(request_bytes).answer()[0] == 413
    assert wire.is_closed()


def test_a_body_at_the_limit_is_taken(wire):
    padding = b" " * (MAX_BODY - len(BODY))
    assert wire.send(post(BODY + padding)).answer()[0] == 200


def test_the_answer_to_an_oversized_upload_is_not_lost_to_a_reset(wire):
    wire.send(HEAD + b"Content-Length: 5000000\r\n\r\n")
    for _ in range(100):
        wire.send(b"x" * 5000)
    assert wire.answer()[0] == 413


def test_pipelined_requests_are_answered_in_order(wire):
    bodies = [BODY, b"[]", BODY, b"{}", BODY]
    wire.send(b"".join(map(post, bodies)))
    assert [b"error" in wire.answer()[2] for _ in bodies] == [False, True, False, True, False]


def test_a_request_in_single_bytes_is_one_request(wire):
    for byte in post(BODY):
        wire.send(bytes([byte]))
    assert wire.answer()[0] == 200


def test_a_client_that_waits_for_100_gets_it(wire):
    wire.send(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    assert wire.answer()[0] == 100
    assert wire.send(BODY).answer()[0] == 200


def test_a_half_closed_client_still_gets_its_answer(wire):
    wire.send(post(BODY))
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.answer()[0] == 200
    assert wire.is_closed()


def test_heads_and_bodies_that_stop_arriving_are_given_up(cpro):
    began = time.monotonic()
    with Wire(cpro.proxy, 15) as slow_head, Wire(cpro.proxy, 15) as slow_body, Wire(cpro.proxy, 15) as idle:
        slow_head.send(b"POST /centrifugo/pub")
        slow_body.send(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert slow_head.is_closed()
        assert slow_body.is_closed()
        assert 9 < time.monotonic() - began < 14
        assert idle.send(post(BODY)).answer()[0] == 200
