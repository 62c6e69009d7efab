"""Several endpoints: in turn, past the dead ones, back when they recover."""

import asyncio

import pytest

from cpro.errors import ConfigError
from cpro.http import health, pool
from cpro.http.client import Failure
from cpro.http.endpoints import parse_endpoint
from tests.unit.http_client_peers import House, PeerConnection, answering, body_of, in_a_house, reply


@pytest.fixture(autouse=True)
def _quick_probes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "PROBE_INTERVAL_S", 0.05)


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}/centrifugo/publish"


@in_a_house
async def test_endpoints_are_asked_in_turn(house: House):
    peers = [await house.peer() for _ in range(3)]
    client = house.client()
    route = client.route([peer.url() for peer in peers], may_repeat=False)
    for _ in range(9):
        await house.ask(client, route)
    assert [len(peer.requests) for peer in peers] == [3, 3, 3]


@in_a_house
async def test_refused_request_goes_to_the_next_endpoint(house: House):
    peer = await house.peer()
    client = house.client()
    route = client.route([url(house.dead_port()), peer.url()], may_repeat=False)
    for _ in range(4):
        assert body_of(await house.ask(client, route)) == b'{"result":{}}'
    assert len(peer.requests) == 4


@in_a_house
async def test_two_of_three_endpoints_dead_costs_nothing_but_the_first_tries(house: House):
    peer = await house.peer()
    client = house.client()
    route = client.route([url(house.dead_port()), peer.url(), url(house.dead_port())], may_repeat=False)
    outcomes = await asyncio.gather(*(house.send(client, route) for _ in range(50)))
    assert {body_of(outcome) for outcome in outcomes} == {b'{"result":{}}'}
    assert len(peer.requests) == 50
    assert [target.health.skipped for _, target in route.targets] == [True, False, True]


@pytest.mark.parametrize("count", [1, 3])
@in_a_house
async def test_all_refused_is_told_at_once_and_every_time(house: House, count: int):
    client = house.client()
    route = client.route([url(house.dead_port()) for _ in range(count)], may_repeat=True)
    for _ in range(2):
        outcomes = await asyncio.gather(*(house.send(client, route) for _ in range(5)))
        assert outcomes == [Failure.REFUSED] * 5


@in_a_house
async def test_requests_beyond_the_cap_are_refused_too(house: House):
    client = house.client()
    route = client.route([url(house.dead_port())], may_repeat=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "MAX_CONNECTIONS", 1)
        assert await asyncio.gather(*(house.send(client, route) for _ in range(5))) == [Failure.REFUSED] * 5


@in_a_house
async def test_dial_that_fails_after_its_request_timed_out_harms_nobody(house: House):
    client = house.client(timeout_s=0.05, connect_timeout_s=0.1)
    route = client.route([url(house.deaf_port())], may_repeat=False)
    assert await house.ask(client, route) is Failure.TIMED_OUT
    await asyncio.wait(route.targets[0][1]._dials)


@in_a_house
async def test_hanging_connect_goes_to_the_next_endpoint_after_the_connect_timeout(house: House):
    peer = await house.peer()
    client = house.client(connect_timeout_s=0.1)
    route = client.route([url(house.deaf_port()), peer.url()], may_repeat=False)
    assert body_of(await house.ask(client, route)) == b'{"result":{}}'


@in_a_house
async def test_total_timeout_covers_hanging_connects(house: House):
    client = house.client(timeout_s=0.15, connect_timeout_s=0.1)
    route = client.route([url(house.deaf_port()) for _ in range(4)], may_repeat=False)
    started = house.loop.time()
    assert await house.ask(client, route) is Failure.TIMED_OUT
    assert house.loop.time() - started < 0.3


@in_a_house
async def test_skipped_endpoint_comes_back_when_it_accepts_again(house: House):
    port = house.dead_port()
    steady = await house.peer()
    client = house.client()
    route = client.route([url(port), steady.url()], may_repeat=False)
    await house.ask(client, route)
    back = route.targets[0][1].health
    assert back.skipped
    house.held.pop().close()
    returned = await house.peer(port=port)
    await asyncio.wait_for(returned.accepted.wait(), 1)
    while back.skipped:
        await asyncio.sleep(0.001)
    for _ in range(4):
        await house.ask(client, route)
    assert len(returned.requests) == 2


@pytest.mark.parametrize("misdeed", [PeerConnection.gone, PeerConnection.reset], ids=["timeouts", "resets"])
@in_a_house
async def test_three_failures_in_a_row_skip_an_endpoint(house: House, misdeed):
    async def script(connection: PeerConnection) -> None:
        if await connection.request():
            result = misdeed(connection)
            if result is not None:
                await result

    bad, good = await house.peer(script), await house.peer()
    client = house.client(timeout_s=0.1)
    route = client.route([bad.url(), good.url()], may_repeat=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "PROBE_INTERVAL_S", 60.0)
        for _ in range(10):
            await house.ask(client, route)
    assert len(bad.requests) == 3
    assert len(good.requests) == 7


@in_a_house
async def test_failures_between_answers_skip_nobody(house: House):
    async def moody(connection: PeerConnection) -> None:
        while await connection.request():
            if len(first.requests) % 2 == 0:
                connection.send(b"HTTP/1.1 ")
                connection.close()
                return
            connection.send(reply())

    first, second = await house.peer(moody), await house.peer()
    client = house.client()
    route = client.route([first.url(), second.url()], may_repeat=False)
    for _ in range(16):
        await house.ask(client, route)
    assert len(first.requests) == 8


@in_a_house
async def test_idle_connections_that_went_stale_skip_nobody(house: House):
    """A backend that closes idle connections when we happen to use them is not ill."""

    async def script(connection: PeerConnection) -> None:
        await connection.answer(reply())
        await connection.request()
        connection.close()

    peer, other = await house.peer(script), await house.peer()
    client = house.client()
    alone = client.route([peer.url()], may_repeat=False)
    route = client.route([peer.url(), other.url()], may_repeat=False)
    await asyncio.gather(*(house.send(client, alone) for _ in range(4)))
    stale = len(peer.connections)
    assert stale == 4
    assert [await house.ask(client, alone) for _ in range(stale)] == [Failure.RESET] * stale
    assert not route.targets[0][1].health.skipped


@in_a_house
async def test_server_errors_are_answers(house: House):
    async def script(connection: PeerConnection) -> None:
        while await connection.request():
            connection.send(reply(b"", status=b"500 Internal Server Error"))

    peer, other = await house.peer(script), await house.peer()
    client = house.client()
    route = client.route([peer.url(), other.url()], may_repeat=False)
    for _ in range(10):
        await house.ask(client, route)
    assert len(peer.requests) == 5


@in_a_house
async def test_only_endpoint_is_never_skipped(house: House):
    port = house.dead_port()
    client = house.client()
    route = client.route([url(port)], may_repeat=False)
    for _ in range(4):
        assert await house.ask(client, route) is Failure.REFUSED
    house.held.pop().close()
    await house.peer(port=port)
    assert body_of(await house.ask(client, route)) == b'{"result":{}}'


@in_a_house
async def test_when_all_are_skipped_they_are_tried_anyway(house: House):
    ports = [house.dead_port(), house.dead_port()]
    client = house.client()
    route = client.route([url(port) for port in ports], may_repeat=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "PROBE_INTERVAL_S", 60.0)
        assert await house.ask(client, route) is Failure.REFUSED
        house.held.pop().close()
        await house.peer(port=ports[1])
        assert body_of(await house.ask(client, route)) == b'{"result":{}}'
    assert [target.health.skipped for _, target in route.targets] == [True, False]


@in_a_house
async def test_peer_that_closes_at_once_is_a_reset_or_a_refusal_never_a_hang(house: House):
    async def script(connection: PeerConnection) -> None:
        connection.reset()

    peer, good = await house.peer(script), await house.peer(answering)
    client = house.client()
    route = client.route([peer.url(), good.url()], may_repeat=False)
    for _ in range(8):
        assert await house.ask(client, route) not in (Failure.TIMED_OUT, Failure.BROKEN)
    assert len(good.requests) >= 4


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("http://app:3000/centrifugo/publish", b"POST /centrifugo/publish HTTP/1.1\r\nHost: app:3000\r\n"),
        ("http://app", b"POST / HTTP/1.1\r\nHost: app\r\n"),
        ("https://app:443/x?a=b&c", b"POST /x?a=b&c HTTP/1.1\r\nHost: app\r\n"),
        ("http://app:443/x", b"POST /x HTTP/1.1\r\nHost: app:443\r\n"),
        ("http://[::1]:3000/x", b"POST /x HTTP/1.1\r\nHost: [::1]:3000\r\n"),
    ],
)
def test_url_becomes_the_first_two_lines(address: str, prefix: bytes):
    assert parse_endpoint(address).head_prefix == prefix


@pytest.mark.parametrize(
    "address",
    [
        "",
        "app:3000/x",
        "grpc://app/x",
        "http:///x",
        "http://app:port/x",
        "http://app:99999/x",
        "http://app/a b",
        "http://app/\r\nX: y",
        "http://éa/x",
        "http://user:hunter2@app/x",
    ],
)
def test_bad_url_is_a_config_error_that_keeps_passwords_to_itself(address: str):
    with pytest.raises(ConfigError) as caught:
        parse_endpoint(address)
    assert "hunter2" not in str(caught.value)
