"""An endpoint: one URL of the application backend, compiled once into what a request needs of it."""

from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from cpro.errors import ConfigError

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Where to connect; endpoints of one origin share its connections."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}"


class Endpoint:
    """One URL: its origin, and the first two lines of every request to it. Never changes; compared by identity."""

    __slots__ = ("head_prefix", "origin", "url")

    def __init__(self, url: str, origin: Origin, head_prefix: bytes) -> None:
        self.url = url
        self.origin = origin
        self.head_prefix = head_prefix

    def at(self, target: bytes, headers: bytes, method: bytes = b"POST") -> "Endpoint":
        """The same origin, asked for another target with more headers (lines, each with CRLF)."""
        host = self.head_prefix.partition(b"\r\n")[2]
        return Endpoint(self.url, self.origin, b"%b %b HTTP/1.1\r\n%b%b" % (method, target, host, headers))


def parse_endpoint(url: str) -> Endpoint:
    """Compile a full http or https URL; a ConfigError says what is wrong with it."""
    if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        raise _fault(url, "holds characters that don't belong in a URL")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _fault(url, str(error)) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _fault(url, "must start with http:// or https://")
    if not parts.hostname:
        raise _fault(url, "has no host")
    if "@" in parts.netloc:
        raise ConfigError(["an upstream URL can't carry a user name or password"])  # and is not repeated here
    origin = Origin(parts.scheme, parts.hostname, _DEFAULT_PORTS[parts.scheme] if port is None else port)
    return Endpoint(url, origin, _build_head_prefix(parts, origin))


def _build_head_prefix(parts: SplitResult, origin: Origin) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = _bracketed(origin.host)
    if origin.port != _DEFAULT_PORTS[origin.scheme]:
        host = f"{host}:{origin.port}"
    return f"POST {target} HTTP/1.1\r\nHost: {host}\r\n".encode("ascii")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _fault(url: str, what: str) -> ConfigError:
    return ConfigError([f"{url!r}: {what}"])
