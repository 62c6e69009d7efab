"""Listen addresses: `host:port`, `[IPv6]:port` or `unix:///path`."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_LONGEST_SOCKET_PATH: Final = 107  # sun_path is 108 bytes with its final zero, unix(7)


@dataclass(frozen=True)
class TcpAddress:
    host: str  # without brackets
    port: int  # 0: any free one

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    path: str

    is_loopback = True

    def __str__(self) -> str:
        return f"unix://{self.path}"


def parse_address(text: str) -> TcpAddress | UnixAddress:
    """ValueError says what is wrong, without repeating the text."""
    if text.startswith("unix:"):
        return UnixAddress(_parse_socket_path(text))
    host, colon, port = text.rpartition(":")
    if not colon or "/" in text or "@" in text:
        raise ValueError("must be host:port or unix:///path")
    if not host:
        raise ValueError(
            f"needs a host before the port; all interfaces are 0.0.0.0{text if len(text) < 7 else ':8001'}"
        )
    return TcpAddress(parse_host(host), parse_port(port))


def parse_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError("must have a port from 0 to 65535")
    return int(text)


def parse_host(text: str) -> str:
    """A name, an IPv4 address, or an IPv6 address in brackets; returned without them."""
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError("has a bad IPv6 address") from None
    if ":" in text:
        raise ValueError("must have its IPv6 address in brackets, such as [::1]:8001")
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError("has a bad IPv4 address") from None
    if not _HOST.fullmatch(text):
        raise ValueError("has a bad host name")
    return text


def _parse_socket_path(text: str) -> str:
    path = text.removeprefix("unix://")
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ValueError("must be unix:// followed by an absolute path, such as unix:///run/cpro.sock")
    if len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise ValueError(f"has too long a socket path: at most {_LONGEST_SOCKET_PATH} bytes")
    return path
