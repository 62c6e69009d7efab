"""Centrifugo's transports over HTTP: where each is, how its streams read, and what a request to it says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from cpro._fast.http1 import Request
from cpro.doors.gateway.dialects import Dialect, OneWay, TwoWay, read_connect
from cpro.doors.gateway.emulation import OCTETS
from cpro.doors.gateway.framing import Delimited, Events, Framing, Lines

CONNECT: Final = b"cf_connect"
"""The parameter of a query in which a transport takes a connect, or more commands."""
_GET: Final = b"GET"


@dataclass(frozen=True, slots=True)
class Way:
    """One transport, `name` in Centrifugo's words."""

    name: str
    is_sse: bool = False
    is_one_way: bool = False

    def is_protobuf(self, request: Request) -> bool:
        """Centrifugo knows it by the exact content type."""
        return not self.is_sse and not self.is_one_way and request.header(b"content-type") == OCTETS

    def framing(self, *, protobuf: bool) -> Framing:
        return Events() if self.is_sse else Delimited() if protobuf else Lines()

    def dialect(self, *, protobuf: bool) -> Dialect:
        return OneWay() if self.is_one_way else TwoWay(protobuf=protobuf)

    def said(self, request: Request) -> bytes | None:
        """What the client asks by this request; None where it opens nothing, ValueError where it asks nothing clear."""
        said = request.body if request.is_post else self._asked(request)
        return read_connect(said) if said is not None and self.is_one_way else said

    def _asked(self, request: Request) -> bytes | None:
        if not self.is_sse or request.method != _GET:
            return None
        return query_value(request.query, CONNECT) or (b"{}" if self.is_one_way else None)

    def target(self, request: Request, asked: bytes) -> bytes:
        """The target to ask Centrifugo for `asked`; empty where that goes into the body."""
        return b"" if request.is_post else target_asking(request, asked)


def target_asking(request: Request, asked: bytes) -> bytes:
    """The target of a request whose query asks for a connect, with that spelt anew."""
    kept = [one for one in request.query.split(b"&") if one and _name(one) != CONNECT]
    return b"%b?%b" % (request.path, b"&".join([*kept, b"%b=%b" % (CONNECT, quote(asked, safe="").encode())]))


WAYS: Final[Mapping[bytes, Way]] = {
    b"/connection/http_stream": Way("http_stream"),
    b"/connection/sse": Way("sse", is_sse=True),
    b"/connection/uni_http_stream": Way("uni_http_stream", is_one_way=True),
    b"/connection/uni_sse": Way("uni_sse", is_sse=True, is_one_way=True),
}


def query_value(query: bytes, name: bytes) -> bytes:
    """The first value of this name, as Go reads queries; empty where there is none."""
    values = (one.partition(b"=")[2] for one in query.split(b"&") if _name(one) == name)
    return _unquoted(next(values, b""))


def _name(parameter: bytes) -> bytes:
    return _unquoted(parameter.partition(b"=")[0])


def _unquoted(quoted: bytes) -> bytes:
    return unquote_to_bytes(quoted.replace(b"+", b" "))
