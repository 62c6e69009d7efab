"""A request that is passed on: one answer, or none for too long."""

import pytest

from cpro.doors.gateway.passage import Passage
from tests.support.gateway import ScriptedTransport


class Scene:
    """A passage with both its legs scripted, and a timer that a test lets ring."""

    def __init__(self, request: bytes = b"GET /x HTTP/1.1\r\n\r\n") -> None:
        self.client, self.centrifugo = ScriptedTransport(), ScriptedTransport()
        self.passed = 0
        self.is_cancelled = False
        self.passage = Passage(self, self.client, request)  # type: ignore[arg-type]
        self.passage.far.give_up_later(self._call_later)
        self.passage.far.connection_made(self.centrifugo)  # type: ignore[arg-type]
        assert self.centrifugo.written == request

    def _call_later(self, delay_s: float, callback):
        self.ring = callback
        return self

    def cancel(self) -> None:
        self.is_cancelled = True

    def on_passed(self, passage: Passage) -> None:
        self.passed += 1

    def is_over(self) -> bool:
        return self.passed == 1 and self.client.is_closed and self.centrifugo.is_closed and self.is_cancelled


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_answer_comes_back_whole(size: int):
    scene = Scene()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    for start in range(0, len(answer), size):
        scene.passage.far.data_received(answer[start : start + size])
    whole = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    assert scene.client.written == whole
    assert scene.is_over()


@pytest.mark.parametrize("length", [b"Content-Length: 9\r\n", b""])
def test_an_answer_to_head_has_a_length_and_no_body(length: bytes):
    scene = Scene(b"HEAD /x HTTP/1.1\r\n\r\n")
    scene.passage.far.data_received(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
    assert scene.client.written == b"HTTP/1.1 200 OK\r\n" + length + b"Connection: close\r\n\r\n"
    assert scene.is_over()


def test_what_goes_on_and_on_is_given_up():
    scene = Scene()
    scene.passage.far.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    scene.ring()
    assert scene.client.written.startswith(b"HTTP/1.1 504 ")
    assert scene.is_over()


def test_a_centrifugo_that_hangs_up_is_a_bad_gateway():
    scene = Scene()
    scene.passage.far.connection_lost(None)
    assert scene.client.written.startswith(b"HTTP/1.1 502 ")
    assert scene.passed == 1
    assert scene.is_cancelled


def test_a_client_that_leaves_ends_it():
    scene = Scene()
    scene.passage.connection_lost(None)
    assert scene.centrifugo.is_closed
    assert scene.passed == 1
    assert scene.client.written == b""
