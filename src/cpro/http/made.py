"""Requests of our own, in the form that the client forwards."""

from typing import Final

from cpro._fast.http1 import Request, RequestParser

_HEAD_LIMIT_BYTES: Final = 1 << 16
_BODY_LIMIT_BYTES: Final = 1 << 31
_HEAD: Final = b"POST %b HTTP/1.1\r\nHost: cpro\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"


def make_post(body: bytes, content_type: bytes = b"application/json", target: bytes = b"/") -> Request:
    """A POST that could have come in."""
    return _read(_HEAD % (target, content_type, len(body)) + body)


def make_get() -> Request:
    """A GET that could have come in."""
    return _read(b"GET / HTTP/1.1\r\nHost: cpro\r\n\r\n")


def _read(whole: bytes) -> Request:
    parser = RequestParser(_HEAD_LIMIT_BYTES, _BODY_LIMIT_BYTES)
    parser.feed(whole)
    request = parser.next_request()
    if request is None:
        raise AssertionError("a whole request was fed")
    return request
