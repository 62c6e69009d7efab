"""The proxy door over TLS: ordinary clients are served, whatever others do to the handshake."""

import shutil
import socket
import ssl
import struct
import subprocess
import time
import warnings
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.processes import eventually, log_so_far, open_files, resident_bytes
from tests.support.service import Service
from tests.support.wire import Wire, post

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")

BODY = b'{"client":"c1","user":"42","channel":"news"}'
REQUEST = post(BODY)
OK = b'{"result":{}}'
ADMITTED = 'cpro_operations_total{door="proxy",op="publish",verdict="admitted"}'


class TlsWire(Wire):
    """A `Wire` within TLS."""

    def __init__(self, address: str, context: ssl.SSLContext):
        super().__init__(address)
        try:
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        except BaseException:
            self.socket.close()
            raise


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """A folder with a server's and a client's key and self-signed certificate."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "client", "stranger"):
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj"
            f" /CN={name} -addext subjectAltName=IP:127.0.0.1 -keyout {name}.key -out {name}.pem"
        )
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def trusting(certificates: Path, own: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates / "server.pem")
    if own:
        context.load_cert_chain(certificates / f"{own}.pem", certificates / f"{own}.key")
    return context


def settings(certificates: Path, **tls: object) -> dict:
    pair = {"cert_pem": str(certificates / "server.pem"), "key_pem": str(certificates / "server.key")}
    return {"proxy": {"without_upstream": "allow", "tls": {"enabled": True, **pair, **tls}}}


@pytest.fixture(scope="module")
def running(tmp_path_factory, certificates):
    with Service(tmp_path_factory.mktemp("service"), settings(certificates)) as service:
        yield service
        ready = [line["message"] for line in log_so_far(service)].index("ready")
        assert service.log[ready + 1 :] == []


@pytest.fixture
def cpro(running):
    """The shared service; whatever a test does to it, its worker closes every file that was opened for it."""
    (worker,) = running.workers()
    files = open_files(worker)
    yield running
    assert running.workers() == [worker], "the worker has died"
    assert eventually(lambda: open_files(worker) <= files)


def test_requests_are_answered_on_one_connection(cpro, certificates):
    with TlsWire(cpro.proxy, trusting(certificates)) as wire:
        for _ in range(20):
            assert wire.send(REQUEST).answer()[::2] == (200, OK)
        wire.send(REQUEST * 100)
        assert [wire.answer()[::2] for _ in range(100)] == [(200, OK)] * 100


def test_a_connection_that_should_close_closes_after_its_answer(cpro, certificates):
    with TlsWire(cpro.proxy, trusting(certificates)) as wire:
        assert wire.send(post(BODY, headers=b"Connection: close\r\n")).answer()[0] == 200
        assert wire.is_closed()
    with TlsWire(cpro.proxy, trusting(certificates)) as wire:
        assert wire.send(b"nonsense\r\n\r\n").answer()[0] == 400
        assert wire.is_closed()


def test_plain_http_to_the_tls_port_is_closed_at_once_and_never_served(cpro, certificates):
    before = cpro.metric(ADMITTED)
    for _ in range(20):
        with Wire(cpro.proxy) as wire:
            wire.send(REQUEST)
            with pytest.raises((EOFError, ConnectionResetError)):
                wire.answer()
    assert cpro.metric(ADMITTED) == before


def test_clients_that_break_off_the_handshake_harm_nobody(cpro, certificates):
    hello = client_hello(certificates)
    for end in ("close", "reset"):
        for cut in (0, 1, 5, 6, len(hello) // 2, len(hello)):
            for _ in range(5):
                wire = Wire(cpro.proxy).send(hello[:cut])
                if end == "reset":
                    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                wire.socket.close()
    with TlsWire(cpro.proxy, trusting(certificates)) as wire:
        assert wire.send(REQUEST).answer()[::2] == (200, OK)


def client_hello(certificates: Path) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        trusting(certificates).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


def test_old_protocols_are_refused(cpro, certificates):
    context = trusting(certificates)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with TlsWire(cpro.proxy, context) as wire:
        assert wire.socket.version() == "TLSv1.3"
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        TlsWire(cpro.proxy, context)


def test_clients_that_stall_in_the_handshake_do_not_slow_others(cpro, certificates):
    hello = client_hello(certificates)
    with ExitStack() as stack:
        for cut in (0, 3, 100, len(hello)) * 50:
            stack.enter_context(Wire(cpro.proxy)).send(hello[:cut])
        began = time.monotonic()
        with TlsWire(cpro.proxy, trusting(certificates)) as wire:
            for _ in range(20):
                assert wire.send(REQUEST).answer()[::2] == (200, OK)
        assert time.monotonic() - began < 5


@pytest.mark.slow
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_client_that_stalls_in_the_handshake_is_given_up_like_a_head_that_does_not_arrive(cpro, certificates, share):
    hello = client_hello(certificates)
    with Wire(cpro.proxy, 20) as wire:
        wire.send(hello[: int(len(hello) * share)])
        began = time.monotonic()
        while wire.socket.recv(65536):
            pass
        assert time.monotonic() - began < 13


def test_a_client_that_resets_in_the_middle_of_its_answers_harms_nobody(cpro, certificates):
    for _ in range(20):
        wire = TlsWire(cpro.proxy, trusting(certificates))
        wire.send(REQUEST * 200)
        wire.socket.recv(100)
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.socket.close()
    with TlsWire(cpro.proxy, trusting(certificates)) as wire:
        assert wire.send(REQUEST).answer()[::2] == (200, OK)


def test_a_client_that_never_reads_costs_little_memory(cpro, certificates):
    (worker,) = cpro.workers()
    before = resident_bytes(worker)
    with ExitStack() as stack:
        for _ in range(3):
            wire = stack.enter_context(TlsWire(cpro.proxy, trusting(certificates)))
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            wire.socket.settimeout(0.5)
            taken = 0
            with suppress(TimeoutError):
                while taken < 100_000_000:
                    wire.socket.sendall(REQUEST * 100)
                    taken += len(REQUEST) * 100
            assert taken < 100_000_000
        assert resident_bytes(worker) - before < 3 * 3_000_000
        with TlsWire(cpro.proxy, trusting(certificates)) as wire:
            assert wire.send(REQUEST).answer()[::2] == (200, OK)


def ask(cpro: Service, context: ssl.SSLContext) -> None:
    with TlsWire(cpro.proxy, context) as wire:
        wire.send(REQUEST).answer()  # TLS 1.3 refuses a certificate after the handshake only


def test_only_clients_with_a_certificate_of_the_authority_are_served(service, certificates):
    cpro = service(settings(certificates, client_ca_pem=str(certificates / "client.pem")))
    with TlsWire(cpro.proxy, trusting(certificates, "client")) as wire:
        assert wire.send(REQUEST).answer()[::2] == (200, OK)
    for own in ("", "stranger"):
        for _ in range(10):
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                ask(cpro, trusting(certificates, own))
    assert cpro.metric(ADMITTED) == 1
    ready = [line["message"] for line in log_so_far(cpro)].index("ready")
    assert len(cpro.log) - ready - 1 <= 2, "strangers must not be able to flood the log"


def test_a_reload_keeps_connections_that_are_within_tls(service, certificates):
    cpro = service(settings(certificates))
    with TlsWire(cpro.proxy, trusting(certificates)) as wire:
        assert wire.send(REQUEST).answer()[0] == 200
        cpro.reload(settings(certificates))
        assert wire.send(REQUEST).answer()[::2] == (200, OK)
