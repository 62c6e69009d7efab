"""One entry of `clickhouse_dsn` -> a server's HTTP address; ValueError says what is wrong without repeating the text.

http://[user[:password]@]host[:port]/[database][?option=value…]     port 8123
https://…                                                           port 8443, with TLS
tcp://…, clickhouse://…                                             PRO's: 9000 means HTTP at 8123, 9440 HTTPS at 8443
"""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from .address import TcpAddress, parse_host, parse_port

_NATIVE_PORTS: Final = {9000: (8123, False), 9440: (8443, True)}
_SCHEMES: Final = ("http", "https", "tcp", "clickhouse")
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")  # Go's strconv.ParseBool


@dataclass(frozen=True)
class ClickhouseServer:
    """Where a ClickHouse answers HTTP, and as whom to ask."""

    address: TcpAddress
    is_tls: bool = False
    user: str = "default"
    password: str = field(default="", repr=False)
    skip_verify: bool = False

    def __str__(self) -> str:
        """Without credentials: for logs, and as its name."""
        return f"{'https' if self.is_tls else 'http'}://{self.address}"


def parse_dsn(text: str) -> tuple[ClickhouseServer, list[str]]:
    """The server, and warnings about what has no effect or another one than in Centrifugo PRO."""
    url = _split(text)
    port = _port_of(url)
    warnings: list[str] = []
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    is_tls = url.scheme == "https" or options.get("secure") in _TRUE
    if url.scheme in ("tcp", "clickhouse"):
        native = 9440 if port is None and is_tls else 9000 if port is None else port
        if native not in _NATIVE_PORTS:
            raise ValueError("has a port of ClickHouse's native protocol: name the HTTP port, http://host:8123")
        port, implied_tls = _NATIVE_PORTS[native]
        is_tls = is_tls or implied_tls
        warnings.append(f"speaks ClickHouse's HTTP instead of its native protocol: port {port} instead of {native}")
    elif port in _NATIVE_PORTS:
        raise ValueError("has a port of ClickHouse's native protocol: name the HTTP port, such as 8123 or 8443")
    warnings += _useless(url, options)
    port = port or (8443 if is_tls else 8123)
    return _server(url, TcpAddress(_host_of(url), port), is_tls, options), warnings


def _server(url: SplitResult, address: TcpAddress, is_tls: bool, options: dict[str, str]) -> ClickhouseServer:
    user = unquote(url.username or "") or options.get("username") or "default"
    password = options.get("password", "") if url.password is None else unquote(url.password)
    return ClickhouseServer(address, is_tls, user, password, options.get("skip_verify") in _TRUE)


def _split(text: str) -> SplitResult:
    if any(char <= " " or char == "\x7f" for char in text):
        raise ValueError("must not have spaces or control characters")
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError("has a bad IPv6 address") from None
    if url.scheme not in _SCHEMES or not url.netloc:
        raise ValueError("must be a URL such as http://user:password@host:8123")
    if "," in url.netloc.rpartition("@")[2]:
        raise ValueError("must name one host: several servers are a list")
    if url.fragment:
        raise ValueError("must not have a fragment: write # as %23")
    return url


def _host_of(url: SplitResult) -> str:
    host = url.netloc.rpartition("@")[2]
    name, colon, _ = host.rpartition(":")
    return parse_host(name if colon and not host.endswith("]") else host)


def _port_of(url: SplitResult) -> int | None:
    host = url.netloc.rpartition("@")[2]
    _, colon, digits = host.rpartition(":")
    if not colon or host.endswith("]"):
        return None
    if parse_port(digits) == 0:
        raise ValueError("must not have port 0")
    return int(digits)


def _useless(url: SplitResult, options: dict[str, str]) -> list[str]:
    known = {"username", "password", "secure", "skip_verify"}
    useless = sorted(name for name in options if name not in known | {"database"} and name.isidentifier())
    warnings = [f"has options without effect here: {', '.join(useless)}"] if useless else []
    if url.path.strip("/") or "database" in options:
        warnings.append("names a database, which has no effect: set clickhouse_database")
    return warnings
