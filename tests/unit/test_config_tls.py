"""Centrifugo's TLS object becomes ssl contexts that really talk to each other."""

import base64
import ssl
from pathlib import Path

import pytest

from cpro.config.model import TLS
from cpro.config.tls import client_context, resolve_pem, server_context

FOLDER = Path(__file__).parent.parent / "config" / "tls"
CERT, KEY = (FOLDER / "cert.pem").read_text(), (FOLDER / "key.pem").read_text()


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> str:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done: set[int] = set()
    for _ in range(10):
        for number, side in enumerate(sides):
            try:
                side.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                pass
    if done == {0, 1}:
        sides[1].write(b"x")  # TLS 1.3: the server's verdict on a client certificate arrives with the first read
        sides[0].read(1)
        return sides[0].version() or ""
    raise AssertionError("no handshake")


@pytest.mark.parametrize("value", [CERT, base64.b64encode(CERT.encode()).decode(), str(FOLDER / "cert.pem")])
def test_pem_may_be_text_base64_or_a_path(value: str):
    assert resolve_pem(value) == CERT.encode()


@pytest.mark.parametrize("value", ["/hush/none.pem", "hush", "a\0hush", str(FOLDER), __file__])
def test_anything_else_is_refused_without_repeating_it(value: str):
    with pytest.raises(ValueError, match=r"^(is neither|names a file)") as caught:
        resolve_pem(value)
    assert "hush" not in str(caught.value)


def test_both_sides_agree_on_a_modern_version():
    server = server_context(TLS(enabled=True, cert_pem=CERT, key_pem=KEY))
    client = client_context(TLS(enabled=True, server_ca_pem=CERT))
    assert shake_hands(server, client) == "TLSv1.3"
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2


def test_an_unknown_authority_is_refused_unless_told_otherwise():
    server = server_context(TLS(enabled=True, cert_pem=CERT, key_pem=KEY))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client_context(TLS()))
    assert shake_hands(server, client_context(TLS(enabled=True, insecure_skip_verify=True)), "other")


def test_client_authority_demands_a_client_certificate():
    server = server_context(TLS(enabled=True, cert_pem=CERT, key_pem=KEY, client_ca_pem=CERT))
    with pytest.raises(ssl.SSLError):
        shake_hands(server, client_context(TLS(enabled=True, server_ca_pem=CERT)))
    assert shake_hands(server, client_context(TLS(enabled=True, server_ca_pem=CERT, cert_pem=CERT, key_pem=KEY)))
