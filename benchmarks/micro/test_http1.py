"""Bytes to a request, and the bytes that go out: to Centrifugo and to the backend."""

import pytest

from benchmarks.micro.conftest import BODY, REQUEST
from cpro._fast.http1 import RequestParser, ResponseParser, build_forward, build_reply
from cpro.doors.upstream import DROPPED_HEADERS

ANSWER = b'{"result":{}}'
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n" + ANSWER
HEAD_PREFIX = b"POST /centrifugo/publish HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n"


@pytest.fixture
def request_():
    parser = RequestParser(65536, 1 << 20)
    parser.feed(REQUEST)
    return parser.next_request()


def test_parse_a_request(measure):
    """One feed, one request, as it comes from a keep-alive connection."""
    parser = RequestParser(65536, 1 << 20)

    def run(calls, feed=parser.feed, take=parser.next_request):
        for _ in range(calls):
            feed(REQUEST)
            request = take()
        return request

    assert measure(run).body == BODY


def test_parse_a_response(measure):
    parser = ResponseParser(65536, 1 << 20)

    def run(calls, expect=parser.expect, feed=parser.feed, take=parser.next_response):
        for _ in range(calls):
            expect()
            feed(RESPONSE)
            response = take()
        return response

    assert measure(run).body == ANSWER


def test_build_reply(measure):
    def run(calls, call=build_reply):
        for _ in range(calls):
            call(ANSWER)

    measure(run)


def test_build_forward(measure, request_):
    def run(calls, call=build_forward):
        for _ in range(calls):
            call(request_, HEAD_PREFIX, DROPPED_HEADERS)

    measure(run)
