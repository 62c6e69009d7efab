"""Whose address a request came from, and what it is counted to."""

import pytest

from cpro._fast.http1 import RequestParser
from cpro.doors.gateway.peers import Peer, Peers

PEERS = Peers(["10.0.0.0/8", "fd00::/8"])


def request(*lines: str):
    parser = RequestParser(1 << 16, 0)
    parser.feed("\r\n".join(("GET / HTTP/1.1", "Host: h", *lines, "", "")).encode())
    return parser.next_request()


@pytest.mark.parametrize(
    ("connected_from", "lines", "peer"),
    [
        ("192.0.2.1", [], Peer("192.0.2.1", "192.0.2.1", False)),
        ("192.0.2.1", ["X-Forwarded-For: 10.0.0.1"], Peer("192.0.2.1", "192.0.2.1", False)),
        ("10.0.0.1", ["X-Forwarded-For: 192.0.2.1"], Peer("192.0.2.1", "192.0.2.1, 10.0.0.1", True)),
        ("::ffff:10.0.0.1", ["X-Real-Ip: 192.0.2.1"], Peer("192.0.2.1", "192.0.2.1, ::ffff:10.0.0.1", True)),
        ("10.0.0.1", ["X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.9.9.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["X-Forwarded-For: 192.0.2.1:5678"], Peer("192.0.2.1", "192.0.2.1, 10.0.0.1", True)),
        ("10.0.0.1", ["X-Forwarded-For: [2001:db8::1]:5678, 10.9.9.9:1"], "2001:db8::1"),
        ("10.0.0.1", ["X-Forwarded-For: [2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["X-Forwarded-For: 2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["X-Real-Ip: 192.0.2.1:5678"], "192.0.2.1"),
        ("", ["X-Forwarded-For: 192.0.2.1"], Peer("", "", False)),
    ],
)
def test_what_trusted_proxies_say_is_believed_and_nothing_else(connected_from: str, lines: list[str], peer):
    found = PEERS.find(request(*lines), connected_from)
    assert (found if isinstance(peer, Peer) else found.address) == peer
