"""Replies, good and bad, and connections that die."""

import asyncio

import pytest

from cpro._fast import carrier
from cpro.http.client import Failure, HttpClient, Route
from tests.unit.http_client_peers import (
    House,
    Peer,
    PeerConnection,
    answering,
    body_of,
    in_a_house,
    make_request,
    reply,
)


async def met(house: House, script, *, may_repeat: bool = False, **options) -> tuple[Peer, HttpClient, Route]:
    peer = await house.peer(script)
    client = house.client(**options)
    return peer, client, client.route([peer.url()], may_repeat=may_repeat)


def saying(data: bytes, then=PeerConnection.gone):
    """A script that answers each request with these bytes, then does something."""

    async def script(connection: PeerConnection) -> None:
        await connection.answer(data)
        result = then(connection)
        if result is not None:
            await result

    return script


@in_a_house
async def test_slow_peer_times_out_and_the_connection_is_closed(house: House):
    peer, client, route = await met(house, PeerConnection.gone, timeout_s=0.1)
    started = house.loop.time()
    assert await house.ask(client, route) is Failure.TIMED_OUT
    assert 0.09 <= house.loop.time() - started < 0.3
    await asyncio.wait_for(peer.plays[0], 1)


@in_a_house
async def test_each_request_has_its_own_deadline(house: House):
    _, client, route = await met(house, PeerConnection.gone, timeout_s=0.15)
    first = house.send(client, route)
    await asyncio.sleep(0.08)
    second = house.send(client, route)
    assert await first is Failure.TIMED_OUT
    assert not second.done()
    assert client.in_flight == 1
    assert await second is Failure.TIMED_OUT


@in_a_house
async def test_endless_trickle_times_out(house: House):
    async def script(connection: PeerConnection) -> None:
        await connection.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
        while not connection.writer.transport.is_closing():
            connection.send(b".")
            await asyncio.sleep(0.01)

    _, client, route = await met(house, script, timeout_s=0.2)
    assert await house.ask(client, route) is Failure.TIMED_OUT


@in_a_house
async def test_reply_in_single_bytes_is_read(house: House):
    async def script(connection: PeerConnection) -> None:
        assert await connection.request()
        for byte in reply(b'{"result":{"data":1}}'):
            connection.send(bytes([byte]))
            await asyncio.sleep(0)

    _, client, route = await met(house, script)
    assert body_of(await house.ask(client, route)) == b'{"result":{"data":1}}'


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (reply(b"oops", status=b"503 Service Unavailable"), 503, b"oops"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"{}"), 200, b"{}"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, b"{}"),
        (reply(b""), 200, b""),
    ],
    ids=["204", "503", "1xx first", "chunked", "empty"],
)
@in_a_house
async def test_complete_reply_keeps_the_connection(house: House, data: bytes, status: int, body: bytes):
    async def script(connection: PeerConnection) -> None:
        await connection.answer(data)
        await connection.answer(reply(b"next"))

    peer, client, route = await met(house, script)
    outcome = await house.ask(client, route)
    assert body_of(outcome) == body
    assert outcome.status == status
    assert body_of(await house.ask(client, route)) == b"next"
    assert len(peer.connections) == 1


@in_a_house
async def test_close_delimited_reply_ends_with_the_connection(house: House):
    _, client, route = await met(house, saying(b"HTTP/1.1 200 OK\r\n\r\n{}", PeerConnection.close))
    assert body_of(await house.ask(client, route)) == b"{}"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"800\r\n"
        + b"." * 0x800
        + b"\r\n"
        + b"fff\r\n"
        + b"." * 0xFFF,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"." * 5000,
        b"HTTP/1.1 200 OK\r\n" + b"X-Endless: yes\r\n" * 8000,
    ],
    ids=["garbage", "two lengths", "gigantic", "gigantic chunks", "endless body", "endless head"],
)
@in_a_house
async def test_broken_or_oversized_reply_fails_and_closes(house: House, data: bytes):
    peer, client, route = await met(house, saying(data))
    assert await house.ask(client, route) is Failure.BROKEN
    await asyncio.wait_for(peer.plays[0], 1)
    assert len(peer.requests) == 1


@pytest.mark.parametrize("may_repeat", [False, True])
@pytest.mark.parametrize("end", [PeerConnection.close, PeerConnection.reset], ids=["closed", "reset"])
@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"], ids=["head", "body"])
@in_a_house
async def test_reply_cut_short_is_a_reset_and_never_repeated(house: House, part: bytes, end, may_repeat: bool):
    async def script(connection: PeerConnection) -> None:
        await connection.answer(reply(b"first"))
        await connection.answer(part)
        await connection.writer.drain()
        await asyncio.sleep(0.02)  # a reset throws away what the client has not read yet
        end(connection)

    peer, client, route = await met(house, script, may_repeat=may_repeat)
    assert body_of(await house.ask(client, route)) == b"first"
    assert await house.ask(client, route) is Failure.RESET
    assert len(peer.requests) == 2


@pytest.mark.parametrize("may_repeat", [False, True])
@pytest.mark.parametrize("end", [PeerConnection.close, PeerConnection.reset], ids=["closed", "reset"])
@in_a_house
async def test_fresh_connection_that_dies_is_never_repeated(house: House, end, may_repeat: bool):
    async def script(connection: PeerConnection) -> None:
        assert await connection.request()
        end(connection)

    peer, client, route = await met(house, script, may_repeat=may_repeat)
    assert await house.ask(client, route) is Failure.RESET
    assert len(peer.requests) == 1


def dying_when_reused(end):
    async def script(connection: PeerConnection) -> None:
        await connection.answer(reply(b"%d" % connection.number))
        if await connection.request():
            end(connection)

    return script


ENDS = pytest.mark.parametrize("end", [PeerConnection.close, PeerConnection.reset], ids=["closed", "reset"])


@ENDS
@in_a_house
async def test_reused_connection_that_dies_is_not_repeated_when_the_route_forbids(house: House, end):
    peer, client, route = await met(house, dying_when_reused(end))
    assert body_of(await house.ask(client, route)) == b"0"
    assert await house.ask(client, route) is Failure.RESET
    assert len(peer.requests) == 2


@ENDS
@in_a_house
async def test_reused_connection_that_dies_is_repeated_once_on_a_fresh_one(house: House, end):
    peer, client, route = await met(house, dying_when_reused(end), may_repeat=True)
    await asyncio.gather(house.send(client, route), house.send(client, route))
    made = len(peer.connections)
    assert body_of(await house.ask(client, route)) == b"%d" % made  # not the other idle one
    assert len(peer.requests) == 4


@in_a_house
async def test_second_attempt_that_dies_is_final(house: House):
    async def script(connection: PeerConnection) -> None:
        if connection.number == 0:
            await connection.answer(reply())
        if await connection.request():
            connection.reset()

    peer, client, route = await met(house, script, may_repeat=True)
    await house.ask(client, route)
    assert await house.ask(client, route) is Failure.RESET
    assert len(peer.requests) == 3


@in_a_house
async def test_second_attempt_that_is_refused_is_a_reset(house: House):
    """The first one may have been acted on: REFUSED would say that it was not."""

    async def script(connection: PeerConnection) -> None:
        await connection.answer(reply())
        if await connection.request():
            peer.server.close()
            await asyncio.sleep(0)
            connection.reset()

    peer, client, route = await met(house, script, may_repeat=True)
    await house.ask(client, route)
    assert await house.ask(client, route) is Failure.RESET
    assert len(peer.requests) == 2


@pytest.mark.parametrize(("may_repeat", "requests"), [(False, 1), (True, 2)])
@in_a_house
async def test_request_that_crosses_the_peers_close_is_repeated_only_when_allowed(house: House, may_repeat, requests):
    async def script(connection: PeerConnection) -> None:
        await connection.answer(reply(b"%d" % connection.number))
        await connection.gone()

    peer, client, route = await met(house, script, may_repeat=may_repeat)
    await house.ask(client, route)
    peer.connections[0].close_now()
    outcome = await house.ask(client, route)
    assert body_of(outcome) == b"1" if may_repeat else outcome is Failure.RESET
    assert len(peer.requests) == requests


@in_a_house
async def test_connection_found_closed_before_writing_is_passed_over(house: House):
    peer, client, route = await met(house, answering)
    await house.ask(client, route)
    peer.connections[0].close_now()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carrier, "PEEK_AFTER_S", 0.0)  # as if it had been idle for long
        assert body_of(await house.ask(client, route)) == b'{"result":{}}'
    assert len(peer.requests) == 2


@in_a_house
async def test_early_reply_is_taken_and_the_connection_closed(house: House):
    async def script(connection: PeerConnection) -> None:
        connection.writer.transport.pause_reading()
        connection.send(reply(b"too large", status=b"413 Content Too Large"))
        await answered.wait()
        connection.writer.transport.resume_reading()
        await connection.gone()

    answered = asyncio.Event()
    peer, client, route = await met(house, script)
    outcome = await house.ask(client, route, make_request(b"x" * (1 << 22)))
    answered.set()
    assert body_of(outcome) == b"too large"
    await asyncio.wait_for(peer.plays[0], 2)
    assert len(client._pools.popitem()[1].idle) == 0


@in_a_house
async def test_large_request_arrives_whole(house: House):
    peer, client, route = await met(house, answering)
    body = b"x" * (1 << 20)
    assert body_of(await house.ask(client, route, make_request(body))) == b'{"result":{}}'
    assert peer.requests[0].endswith(body)


@in_a_house
async def test_callback_that_raises_harms_nobody_else(house: House):
    peer, client, route = await met(house, answering)
    complaints: list[dict] = []
    house.loop.set_exception_handler(lambda _, context: complaints.append(context))

    def on_done(outcome) -> None:
        raise ZeroDivisionError

    route.send(make_request(), on_done)
    while not complaints:
        await asyncio.sleep(0.001)
    assert isinstance(complaints[0]["exception"], ZeroDivisionError)
    assert body_of(await house.ask(client, route)) == b'{"result":{}}'
    assert len(peer.connections) == 1
