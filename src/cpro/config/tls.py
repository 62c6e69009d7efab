"""Centrifugo's TLS object -> ssl contexts. No message repeats a value: it may be a private key."""

import base64
import binascii
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .model import TLS

_MARK: Final = b"-----BEGIN "


def resolve_pem(value: str) -> bytes:
    """PEM text, base64 of PEM text, or a path, tried in this order as Centrifugo does; ValueError says why not."""
    raw = value.encode("utf-8", "surrogateescape")
    if _MARK in raw:
        return raw
    try:
        decoded = base64.b64decode(raw, validate=True)
    except binascii.Error:
        decoded = b""
    if _MARK in decoded:
        return decoded
    try:
        content = Path(value).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        raise ValueError(f"is neither PEM, nor base64 of PEM, nor a file that can be read ({reason})") from None
    if _MARK not in content:
        raise ValueError("names a file that holds no PEM")
    return content


def server_context(tls: TLS) -> ssl.SSLContext:
    """For a listener; ValueError says what is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, tls)
    if tls.client_ca_pem:
        _load_authority(context, tls.client_ca_pem, "client_ca_pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: TLS, *, http: bool = True) -> ssl.SSLContext:
    """For requests to `https://` or another server, with the system's authorities unless `server_ca_pem` names others.

    `server_name` is for the caller, who passes it as `server_hostname`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if http:
        context.set_alpn_protocols(["http/1.1"])
    if not tls.enabled:
        context.load_default_certs()
        return context
    if tls.server_ca_pem:
        _load_authority(context, tls.server_ca_pem, "server_ca_pem")
    else:
        context.load_default_certs()
    if tls.cert_pem and tls.key_pem:
        _load_certificate(context, tls)
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_authority(context: ssl.SSLContext, value: str, name: str) -> None:
    try:
        context.load_verify_locations(cadata=resolve_pem(value).decode("ascii", "ignore"))
    except ssl.SSLError:
        raise ValueError(f"{name} holds no certificate") from None


def _load_certificate(context: ssl.SSLContext, tls: TLS) -> None:
    with _in_memory(resolve_pem(tls.cert_pem)) as cert, _in_memory(resolve_pem(tls.key_pem)) as key:
        try:
            context.load_cert_chain(cert, key, password=_no_password)
        except (ssl.SSLError, ValueError):
            raise ValueError("cert_pem and key_pem must be a certificate and its unencrypted private key") from None


def _no_password() -> str:
    return ""  # without this OpenSSL would ask on the terminal


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path to the content for OpenSSL, which only reads files; a key never touches the disk (memfd_create(2))."""
    descriptor = os.memfd_create("cpro-pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
