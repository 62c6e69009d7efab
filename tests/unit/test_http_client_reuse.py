"""Connections: kept, shared, given up."""

import asyncio

import pytest

from cpro._fast import carrier
from cpro.http import pool
from cpro.http.client import Failure
from tests.unit.http_client_peers import House, PeerConnection, answering, body_of, in_a_house, make_request, reply


@in_a_house
async def test_sequential_requests_share_one_connection(house: House):
    peer = await house.peer()
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    for _ in range(5):
        assert body_of(await house.ask(client, route)) == b'{"result":{}}'
    assert len(peer.connections) == 1
    assert len(peer.requests) == 5


@in_a_house
async def test_the_endpoints_path_and_host_replace_the_requests_own(house: House):
    peer = await house.peer()
    client = house.client(drop=(b"accept-encoding",))
    route = client.route([peer.url("/app/rpc?x=1")], may_repeat=False)
    await house.ask(client, route, make_request(b'{"a":1}', b"Accept-Encoding: gzip\r\nX-Real-Ip: 1.2.3.4\r\n"))
    message = peer.requests[0]
    assert message.startswith(b"POST /app/rpc?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % peer.port)
    assert message.endswith(b'\r\n\r\n{"a":1}')
    assert b"gzip" not in message
    assert b"1.2.3.4" in message
    assert message.lower().count(b"\r\nhost:") == 1


@in_a_house
async def test_routes_of_one_origin_share_connections(house: House):
    peer = await house.peer()
    client = house.client()
    await house.ask(client, client.route([peer.url("/a")], may_repeat=False))
    await house.ask(client, client.route([peer.url("/b")], may_repeat=True))
    assert len(peer.connections) == 1


@in_a_house
async def test_concurrent_requests_take_a_connection_each_and_the_youngest_is_used_next(house: House):
    peer = await house.peer()
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    await asyncio.gather(*(house.send(client, route) for _ in range(10)))
    assert 1 < len(peer.connections) <= 10
    made = len(peer.connections)
    for _ in range(10):
        await house.ask(client, route)
    assert len(peer.connections) == made


@in_a_house
async def test_requests_beyond_the_cap_wait_in_order_and_are_all_served(house: House):
    peer = await house.peer()
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    order: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "MAX_CONNECTIONS", 1)
        futures = [house.send(client, route) for _ in range(20)]
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, number=number: order.append(number))
        assert client.in_flight == 20
        await asyncio.gather(*futures)
    await asyncio.sleep(0)
    assert len(peer.connections) == 1
    assert order == list(range(20))


@in_a_house
async def test_requests_beyond_the_cap_are_served_when_connections_are_not_kept(house: House):
    peer = await house.peer(lambda connection: connection.answer(reply(b"{}", b"Connection: close")))
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "MAX_CONNECTIONS", 2)
        outcomes = await asyncio.gather(*(house.send(client, route) for _ in range(6)))
    assert [body_of(outcome) for outcome in outcomes] == [b"{}"] * 6
    assert len(peer.connections) == 6


@in_a_house
async def test_idle_connection_past_its_time_is_not_used_even_before_it_is_closed(house: House):
    peer = await house.peer()
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    await house.ask(client, route)
    route.targets[0][1].idle[0].reuse_until_s = house.loop.time()
    await house.ask(client, route)
    assert len(peer.connections) == 2


@in_a_house
async def test_a_request_that_waits_for_a_connection_times_out_too(house: House):
    peer = await house.peer(PeerConnection.gone)
    client = house.client(timeout_s=0.1)
    route = client.route([peer.url()], may_repeat=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "MAX_CONNECTIONS", 1)
        outcomes = await asyncio.gather(*(house.send(client, route) for _ in range(3)))
    assert outcomes == [Failure.TIMED_OUT] * 3


@pytest.mark.parametrize(
    "last",
    [
        reply(b"{}", b"Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        reply(b"{}") + b"HTTP/1.1 200 OK\r\n",
        reply(b"{}", b"Keep-Alive: timeout=1"),
    ],
    ids=["connection close", "http 1.0", "excess bytes", "keep-alive of one second"],
)
@in_a_house
async def test_connection_that_must_not_be_reused_is_closed(house: House, last: bytes):
    peer = await house.peer(lambda connection: connection.answer(last))
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    for _ in range(2):
        assert body_of(await house.ask(client, route)) == b"{}"
        await asyncio.wait_for(peer.plays[-1], 1)
    assert len(peer.connections) == 2


@in_a_house
async def test_keep_alive_timeout_is_honoured_a_second_early(house: House):
    async def script(connection: PeerConnection) -> None:
        await connection.answer(reply(b"{}", b"Keep-Alive: max=9, timeout=2"))
        await connection.gone()

    peer = await house.peer(script)
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carrier, "KEEP_ALIVE_MARGIN_S", 1.9)
        await house.ask(client, route)
        (connection,) = client._pools.popitem()[1].idle
    assert connection.reuse_until_s - connection.idle_since_s == pytest.approx(0.1)
    await asyncio.wait_for(peer.plays[0], 1)


@in_a_house
async def test_idle_connections_are_closed_after_a_while(house: House):
    peer = await house.peer()
    client = house.client(max_idle_s=0.1)
    route = client.route([peer.url()], may_repeat=False)
    await asyncio.gather(*(house.send(client, route) for _ in range(3)))
    await asyncio.wait_for(asyncio.gather(*peer.plays), 1)
    assert not client._pools.popitem()[1].idle


@in_a_house
async def test_a_route_asks_for_another_target_over_the_same_connection(house: House):
    peer = await house.peer()
    client = house.client()
    route = client.route([peer.url("/")], may_repeat=False)
    for target in (b"/api/info?a=1", b"/api/publish"):
        await house.ask(client, route.at(target, b"X-API-Key: k\r\n"))
    heads = [request.partition(b"\r\n\r\n")[0].split(b"\r\n") for request in peer.requests]
    assert [head[0] for head in heads] == [b"POST /api/info?a=1 HTTP/1.1", b"POST /api/publish HTTP/1.1"]
    assert all(b"X-API-Key: k" in head for head in heads)
    assert len(peer.connections) == 1


@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
@in_a_house
async def test_idle_connection_that_says_something_is_removed_at_once(house: House, farewell: bytes):
    async def script(connection: PeerConnection) -> None:
        await connection.answer(reply())
        await speak.wait()
        connection.send(farewell)
        if not farewell:
            connection.close()
        await connection.gone()

    speak = asyncio.Event()
    peer = await house.peer(script)
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    await house.ask(client, route)
    speak.set()
    await asyncio.wait_for(peer.plays[0], 1)
    while client._pools[next(iter(client._pools))].idle:
        await asyncio.sleep(0.001)
    peer.script = answering
    assert body_of(await house.ask(client, route)) == b'{"result":{}}'
    assert len(peer.connections) == 2


@in_a_house
async def test_close_lets_requests_in_flight_finish_and_refuses_new_ones(house: House):
    async def script(connection: PeerConnection) -> None:
        assert await connection.request()
        arrived.set()
        await go_on.wait()
        connection.send(reply(b"late"))

    arrived, go_on = asyncio.Event(), asyncio.Event()
    peer = await house.peer(script)
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    first = house.send(client, route)
    await arrived.wait()
    closing = asyncio.ensure_future(client.close(2))
    await asyncio.sleep(0)
    assert await house.ask(client, route) is Failure.CLOSED
    go_on.set()
    assert body_of(await first) == b"late"
    await asyncio.wait_for(closing, 0.5)


@in_a_house
async def test_close_fails_what_is_left_after_the_drain(house: House):
    peer = await house.peer(PeerConnection.gone)
    client = house.client(timeout_s=5)
    route = client.route([peer.url()], may_repeat=True)
    carried = house.send(client, route)
    await peer.accepted.wait()
    dialling = house.send(client, client.route([f"http://127.0.0.1:{house.deaf_port()}/"], may_repeat=True))
    await client.close(0.05)
    assert await carried is Failure.CLOSED
    assert await dialling is Failure.CLOSED


@in_a_house
async def test_close_right_after_send_still_tells_the_sender(house: House):
    peer = await house.peer()
    client = house.client()
    sent = house.send(client, client.route([peer.url()], may_repeat=True))
    await client.close(0)
    assert await sent is Failure.CLOSED


@in_a_house
async def test_a_callback_may_send_again_at_once(house: House):
    peer = await house.peer()
    client = house.client()
    route = client.route([peer.url()], may_repeat=False)
    done: asyncio.Future[None] = house.loop.create_future()
    outcomes = []

    def on_done(outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) < 5:
            route.send(make_request(), on_done)
        else:
            done.set_result(None)

    route.send(make_request(), on_done)
    await asyncio.wait_for(done, 1)
    assert len(peer.connections) == 1
