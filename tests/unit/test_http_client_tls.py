"""https endpoints."""

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from cpro.http.client import Failure
from tests.unit.http_client_peers import House, PeerConnection, answering, body_of, in_a_house, make_request, reply

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of app.internal and 127.0.0.1, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key.pem"
        " -out cert.pem -subj /CN=app.internal -addext subjectAltName=DNS:app.internal,IP:127.0.0.1"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


@in_a_house
async def test_https_reuses_its_connection_and_verifies_the_address(house: House, certificate: Path):
    peer = await house.peer(answering, tls=serving(certificate))
    client = house.client(tls=trusting(certificate))
    route = client.route([peer.url()], may_repeat=False)
    for _ in range(3):
        assert body_of(await house.ask(client, route)) == b'{"result":{}}'
    assert len(peer.connections) == 1


@in_a_house
async def test_server_hostname_is_what_is_asked_for_and_verified(house: House, certificate: Path):
    asked: list[str] = []
    context = serving(certificate)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    peer = await house.peer(answering, tls=context)
    for name, expected in (("app.internal", None), ("other.internal", Failure.REFUSED)):
        client = house.client(tls=trusting(certificate), server_hostname=name)
        outcome = await house.ask(client, client.route([peer.url()], may_repeat=False))
        assert outcome is expected if expected else body_of(outcome)
    assert asked == ["app.internal", "other.internal"]


@in_a_house
async def test_unknown_certificate_is_refused_and_nothing_sent(house: House, certificate: Path):
    peer = await house.peer(answering, tls=serving(certificate))
    client = house.client()
    assert await house.ask(client, client.route([peer.url()], may_repeat=True)) is Failure.REFUSED
    assert not peer.requests


@in_a_house
async def test_https_to_a_plain_port_is_refused(house: House, certificate: Path):
    async def script(connection: PeerConnection) -> None:
        connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    peer = await house.peer(script)
    client = house.client(tls=trusting(certificate))
    route = client.route([peer.url().replace("http:", "https:")], may_repeat=False)
    assert await house.ask(client, route) is Failure.REFUSED


@in_a_house
async def test_hanging_handshake_is_refused_after_the_connect_timeout(house: House, certificate: Path):
    peer = await house.peer(PeerConnection.gone)
    client = house.client(tls=trusting(certificate), connect_timeout_s=0.1)
    route = client.route([peer.url().replace("http:", "https:")], may_repeat=False)
    assert await house.ask(client, route) is Failure.REFUSED
    await asyncio.wait_for(peer.plays[0], 1)


@in_a_house
async def test_slow_https_peer_times_out_and_the_connection_is_closed(house: House, certificate: Path):
    peer = await house.peer(PeerConnection.gone, tls=serving(certificate))
    client = house.client(tls=trusting(certificate), timeout_s=0.2)
    assert await house.ask(client, client.route([peer.url()], may_repeat=True)) is Failure.TIMED_OUT
    await asyncio.wait_for(peer.plays[0], 1)


@in_a_house
async def test_reused_https_connection_that_dies_is_repeated_once(house: House, certificate: Path):
    async def script(connection: PeerConnection) -> None:
        await connection.answer(reply(b"%d" % connection.number))
        if await connection.request():
            connection.reset()

    peer = await house.peer(script, tls=serving(certificate))
    client = house.client(tls=trusting(certificate))
    route = client.route([peer.url()], may_repeat=True)
    assert body_of(await house.ask(client, route)) == b"0"
    assert body_of(await house.ask(client, route)) == b"1"
    assert len(peer.requests) == 3


@in_a_house
async def test_close_delimited_https_reply_needs_the_peers_goodbye(house: House, certificate: Path):
    """Without close_notify anybody on the way could have cut the reply short (RFC 9112 section 9.8)."""

    async def script(connection: PeerConnection) -> None:
        await connection.answer(b"HTTP/1.1 200 OK\r\n\r\n{}")
        if connection.number == 0:
            connection.close()
        else:
            await asyncio.sleep(0.05)
            connection.close_now()

    peer = await house.peer(script, tls=serving(certificate))
    client = house.client(tls=trusting(certificate))
    route = client.route([peer.url()], may_repeat=False)
    assert body_of(await house.ask(client, route)) == b"{}"
    assert await house.ask(client, route) is Failure.RESET


@in_a_house
async def test_large_https_request_arrives_whole(house: House, certificate: Path):
    peer = await house.peer(answering, tls=serving(certificate))
    client = house.client(tls=trusting(certificate))
    body = b"x" * (1 << 20)
    route = client.route([peer.url()], may_repeat=False)
    assert body_of(await house.ask(client, route, make_request(body))) == b'{"result":{}}'
    assert peer.requests[0].endswith(body)
