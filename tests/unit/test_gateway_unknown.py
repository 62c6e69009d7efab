"""What of Centrifugo may be reached through the gateway: in no spelling its API, pages of operators, or transports."""

from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.http1 import RequestParser
from cpro.doors.gateway.unknown import OPERATORS, TRANSPORTS, is_kept_back, may_pass

PASSED = "/connection/init /health /connection/init/ /x /favicon.ico /a/b/c /apis /my-api /%7euser"
KEPT_BACK = r"""
    /api /api/ /api/publish //api /api//publish /./api /x/../api /api/../x /x/../../api/info
    /%61pi /%2561pi /%252561pi /a%70i/info /%2fapi /x%2fapi /x%5capi /x\api /api%2fpublish
    /API /Api/Publish /api;x=1 /api. /api%20 /api%00 /api%0a /api%3fx /api%23 /api?x=1
    /x%25252525252525252561pi /%EF%BD%81pi /caf%C3%A9 /%7f
    /admin /admin/ /admin/auth /admin/api /metrics /metrics/ /debug/pprof/ /debug /swagger/
    /internal/api/publish /centrifugo/admin/auth
    / // /. /.. /x/.. /%2e%2e /./ /x/../ /%2f /..%2f * x
    /connection/websocket /connection/%77ebsocket /connection//sse /connection/./http_stream /emulation/
    /EMULATION /%65mulation /connection/uni_sse /connection/uni_http_stream/ /connection/webtransport
"""


def request(target: str, method: str = "GET", body: bytes = b""):
    parser = RequestParser(1 << 16, 1 << 16)
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    parser.feed(f"{method} {target} HTTP/1.1\r\nHost: h\r\n{length}\r\n".encode() + body)
    return parser.next_request()


@pytest.mark.parametrize("path", PASSED.split())
def test_what_is_nobodys_secret_passes(path: str):
    assert not is_kept_back(path.encode())
    for method in ("GET", "HEAD", "OPTIONS"):
        assert may_pass(request(f"{path}?a=b&c=%64", method))


@pytest.mark.parametrize("path", ["", *KEPT_BACK.split()])
def test_what_is_for_operators_or_transports_is_kept_back(path: str):
    assert is_kept_back(path.encode("latin-1"))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get"])
def test_nothing_with_a_body_passes(method: str):
    assert not may_pass(request("/x", method))
    assert not may_pass(request("/x", "GET", b"{}"))


@pytest.mark.parametrize(
    "query", ["cf_connect=%7B%7D", "a=b&cf_connect", "%63f_connect=x", "a&CF_CONNECT=", "%2563f%5fconnect"]
)
def test_no_query_carries_commands(query: str):
    assert not may_pass(request(f"/x?{query}"))


def as_go_reads(path: bytes) -> bytes:
    """The path that Go's ServeMux finds a handler by: decoded once, then cleaned."""
    kept: list[bytes] = []
    for name in unquote_to_bytes(path).split(b"/"):
        if name == b"..":
            del kept[-1:]
        elif name not in (b"", b"."):
            kept.append(name)
    return b"/" + b"/".join(kept)


NAMES = st.sampled_from(sorted([*OPERATORS, *TRANSPORTS, b"x", b".", b"..", b"", b"connection"]))


@given(st.lists(NAMES, max_size=6), st.data())
def test_no_spelling_leads_where_a_plain_path_does_not(names: list[bytes], data: st.DataObject):
    spelled = b""
    for byte in b"/" + b"/".join(names):
        is_coded = data.draw(st.booleans())
        spelled += b"%%%02x" % byte if is_coded and len(spelled) else bytes([byte])
    if not is_kept_back(spelled):
        reached = as_go_reads(spelled).split(b"/")
        assert not (OPERATORS | TRANSPORTS) & set(reached)
        assert reached != [b"", b""]
    assert is_kept_back(quote_from_bytes(as_go_reads(spelled)).encode()) <= is_kept_back(spelled)
