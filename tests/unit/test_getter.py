"""Documents of a server that may do anything: got whole, or not at all."""

import asyncio
import socket
import time

import pytest
import uvloop

from cpro.http.client import HttpClient
from cpro.http.getter import Getter
from tests.support.centrifugo import free_port
from tests.support.keys import Answer, KeyServer, give

PATIENCE_S = 20.0
MOST_BYTES = 10_000


def get(url: str, timeout_s: float = PATIENCE_S, times: int = 1) -> list[bytes | None]:
    async def run() -> list[bytes | None]:
        loop = asyncio.get_running_loop()
        client = HttpClient(loop, timeout_s=timeout_s, connect_timeout_s=timeout_s, max_reply_bytes=MOST_BYTES)
        getter = Getter(client, url)
        try:
            return [await ask(loop, getter) for _ in range(times)]
        finally:
            await client.close(0.0)

    async def ask(loop: asyncio.AbstractEventLoop, getter: Getter) -> bytes | None:
        heard: asyncio.Future[bytes | None] = loop.create_future()
        getter.get(url, heard.set_result)
        return await asyncio.wait_for(heard, 2 * PATIENCE_S)

    return uvloop.run(run())


def test_a_document_is_got_again_and_again():
    with KeyServer(b"{}") as server:
        assert get(server.url, times=3) == [b"{}"] * 3
        assert server.asked == ["/keys"] * 3


def chunked(handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")


def until_closed(handler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n{}")
    handler.close_connection = True


@pytest.mark.parametrize("answer", [chunked, until_closed])
def test_however_it_is_framed(answer: Answer):
    with KeyServer(answer) as server:
        assert get(server.url) == [b"{}"]


def redirecting(handler) -> None:
    handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")


def hanging_up(handler) -> None:
    handler.close_connection = True


def resetting(handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.close_connection = True


def cut_short(handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")
    handler.close_connection = True


def too_long(handler) -> None:
    give(handler, b"x" * (MOST_BYTES + 1))


def endless(handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(b"x" * 4096)


FAILURES: dict[str, Answer] = {
    "not_found": lambda handler: give(handler, b"{}", 404),
    "error": lambda handler: give(handler, b"{}", 500),
    "nothing": lambda handler: give(handler, b"", 204),
    "redirect": redirecting,
    "hang_up": hanging_up,
    "reset": resetting,
    "cut_short": cut_short,
    "too_long": too_long,
    "endless": endless,
    "not_http": lambda handler: handler.wfile.write(b"220 smtp.example\r\n"),
    "two_lengths": lambda handler: handler.wfile.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_no_document(name: str):
    with KeyServer(FAILURES[name]) as server:
        assert get(server.url) == [None]
        assert set(server.asked) == {"/keys"}, "and is not followed elsewhere"
        server.answer = b"{}"
        assert get(server.url) == [b"{}"]


def dripping(handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        handler.wfile.write(b"x")
        time.sleep(0.01)


def silent(handler) -> None:
    handler.rfile.read()


@pytest.mark.parametrize("answer", [dripping, silent])
def test_a_slow_server_is_given_up(answer: Answer):
    with KeyServer(answer) as server:
        assert get(server.url, timeout_s=0.1) == [None]


def test_nobody_there_is_no_document():
    assert get(f"http://127.0.0.1:{free_port()}/keys") == [None]
    assert get("http://does-not-exist.invalid/keys") == [None]
