"""Behind proxies that speak the PROXY protocol: a client is who they say it is, and nobody else can say so."""

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import pack

import pytest

from tests.support.centrifugo import free_port
from tests.support.service import Service
from tests.support.upgrades import HEAD, Recorder, Upgrades, read_status

START_S = 20.0
CLIENT, OTHER = "127.0.0.2", "127.0.0.3"
"""Where clients connect from; HAProxy itself, and the tests, do from 127.0.0.1."""
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
BLOCK = b"\r\n\r\n\x00\r\nQUIT\n" + pack("!BBH4B4BHH", 0x21, 0x11, 12, 192, 0, 2, 2, 127, 0, 0, 1, 1, 2)
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n" + pack("!BBH", 0x20, 0, 0)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


@pytest.fixture
def gateway(service: Callable[..., Service], recorder: Recorder):
    def start(**gateway: object) -> Service:
        own = {"enabled": True, "address": "127.0.0.1:0", "centrifugo": [recorder.url], "proxy_protocol": True}
        return service({"gateway": {**own, "trusted_proxies": ["127.0.0.1/32"], **gateway}})

    return start


class HAProxy:
    """In front of a gateway, once for each version of the protocol; use as a context manager."""

    def __init__(self, folder: Path, gateway: str) -> None:
        self.ports = {"send-proxy": free_port(), "send-proxy-v2 proxy-v2-options crc32c,authority": free_port()}
        listeners = (
            f"listen p{port}\n  bind 127.0.0.1:{port}\n  server gateway {gateway} {options}\n"
            for options, port in self.ports.items()
        )
        timeouts = "  timeout connect 20s\n  timeout client 60s\n  timeout server 60s\n"
        self._config = folder / "haproxy.cfg"
        self._config.write_text("global\n  maxconn 100\ndefaults\n  mode tcp\n" + timeouts + "".join(listeners))

    def __enter__(self) -> "HAProxy":
        self._process = subprocess.Popen(["haproxy", "-db", "-f", str(self._config)])
        until = time.monotonic() + START_S
        for port in self.ports.values():
            while not is_open(port):
                assert self._process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(10)


def is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def ask_from(address: str, port: int) -> int:
    """The status of an upgrade asked for from one of loopback's addresses."""
    with socket.create_connection(("127.0.0.1", port), START_S, (address, 0)) as connection:
        connection.sendall(f"{HEAD}X-Forwarded-For: 6.6.6.6\r\n\r\n".encode())
        return read_status(connection)


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy on PATH")
def test_clients_behind_haproxy_have_their_own_addresses(gateway, recorder: Recorder, tmp_path: Path):
    cpro = gateway()
    with HAProxy(tmp_path, cpro.gateway) as haproxy:
        for port in haproxy.ports.values():
            for client in (CLIENT, OTHER):
                assert ask_from(client, port) == 403
                head = recorder.next_head()
                while head["x-real-ip"] == "127.0.0.1":  # the test has looked whether HAProxy is up
                    head = recorder.next_head()
                assert (head["x-real-ip"], head["x-forwarded-for"]) == (client, client)


def test_a_header_names_the_client_in_whatever_pieces_it_comes(gateway, recorder: Recorder):
    host, port = gateway().gateway.split(":")
    for header, address in ((LINE, "192.0.2.1"), (BLOCK, "192.0.2.2")):
        with socket.create_connection((host, int(port)), START_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in header:
                connection.send(bytes([byte]))
            connection.sendall(f"{HEAD}X-Forwarded-For: 6.6.6.6\r\n\r\n".encode())
            assert read_status(connection) == 403
        assert recorder.next_head()["x-forwarded-for"] == address


def test_a_client_that_is_a_trusted_proxy_is_believed_in_turn(gateway, recorder: Recorder):
    cpro = gateway(trusted_proxies=["127.0.0.1/32", "192.0.2.0/24"])
    with Upgrades(cpro.gateway) as upgrades:
        assert upgrades.ask({"X-Forwarded-For": "203.0.113.9"}, before=LINE) == 403
        assert recorder.next_head()["x-real-ip"] == "203.0.113.9"


def test_a_proxy_that_speaks_for_itself_is_who_it_is(gateway, recorder: Recorder):
    with Upgrades(gateway().gateway) as upgrades:
        assert upgrades.ask({"X-Forwarded-For": "203.0.113.9"}, before=LOCAL) == 403
        assert recorder.next_head()["x-real-ip"] == "203.0.113.9"
        assert upgrades.ask({"X-Forwarded-For": "203.0.113.9"}, before=b"PROXY UNKNOWN\r\n") == 403
        assert "x-real-ip" not in recorder.next_head(), "nobody knows whose it is, so its word is nobody's"


def test_who_is_no_trusted_proxy_is_served_without_a_header_and_refused_with_one(gateway, recorder: Recorder):
    cpro = gateway(trusted_proxies=["10.0.0.0/8"])
    with Upgrades(cpro.gateway) as upgrades:
        assert upgrades.ask() == 403
        assert recorder.next_head()["x-real-ip"] == "127.0.0.1"
        assert upgrades.ask(before=LINE) == 400
        assert upgrades.ask(before=BLOCK) == 400


def test_a_trusted_proxy_without_a_header_is_hung_up_on(gateway, recorder: Recorder):
    cpro = gateway()
    with Upgrades(cpro.gateway) as upgrades:
        assert upgrades.ask() == 0
        cpro.wait_for("a trusted proxy sent no header")
        assert upgrades.ask(before=LINE) == 403
    assert recorder.heads.qsize() == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_the_header_comes_before_tls(gateway, recorder: Recorder, tmp_path: Path):
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    pair = {"cert_pem": str(tmp_path / "cert.pem"), "key_pem": str(tmp_path / "key.pem")}
    cpro = gateway(tls={"enabled": True, **pair})
    host, port = cpro.gateway.split(":")
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    for header in (LINE, BLOCK):
        with socket.create_connection((host, int(port)), START_S) as plain:
            plain.sendall(header)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(f"{HEAD}\r\n".encode())
                assert read_status(connection) == 403
        assert recorder.next_head()["x-real-ip"].startswith("192.0.2.")
    with Upgrades(cpro.gateway) as upgrades:
        assert upgrades.ask(before=LINE) == 0, "no TLS"
        assert upgrades.ask() == 0, "no header"


def test_at_a_unix_socket_everybody_is_a_proxy(service, recorder: Recorder, tmp_path: Path):
    path = tmp_path / "gateway.sock"
    own = {"enabled": True, "address": f"unix://{path}", "centrifugo": [recorder.url], "proxy_protocol": True}
    service({"gateway": own})
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(START_S)
        connection.connect(str(path))
        connection.sendall(LINE + f"{HEAD}\r\n".encode())
        assert read_status(connection) == 403
    assert recorder.next_head()["x-real-ip"] == "192.0.2.1"
