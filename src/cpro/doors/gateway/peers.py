"""Where a client really is: the TCP peer, or what trusted proxies in front of the gateway say."""

import re
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final, NamedTuple

from cpro._fast.http1 import Request
from cpro.addresses import parse_address

_WITH_PORT: Final = re.compile(r"(?P<ipv4>[0-9.]+):[0-9]+|\[(?P<ipv6>[0-9A-Fa-f:.]+)\](?::[0-9]+)?")


class Peer(NamedTuple):
    """A client's address (empty at a Unix socket), and whether whoever connected may name others."""

    address: str
    forwarded_for: str
    """For Centrifugo: the chain of addresses, the client's first."""
    is_trusted: bool
    """The TCP peer is a trusted proxy: the headers it sets are believed."""


class Peers:
    """Knows the trusted proxies."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ip_network(network, strict=False) for network in networks]

    def find(self, request: Request, connected_from: str) -> Peer:
        """Who sent `request` over a connection from `connected_from`.

        In X-Forwarded-For everything behind the last address that is no trusted proxy is proxies' own; what stands
        before it is the client's word, and nobody's proof.
        """
        if not self.trusts(connected_from):
            return Peer(connected_from, connected_from, is_trusted=False)
        chain = _chain(request)
        real_ip = (request.header(b"x-real-ip") or b"").decode("latin-1").strip()
        if not chain and real_ip:
            chain = [_without_port(real_ip)]
        client = next((one for one in reversed(chain) if not self.trusts(one)), chain[0] if chain else connected_from)
        return Peer(client, ", ".join([*chain, connected_from]), is_trusted=True)

    def trusts(self, text: str) -> bool:
        """Whether an address is a trusted proxy's."""
        address = parse_address(text)
        return address is not None and any(address in network for network in self._networks)


def _chain(request: Request) -> list[str]:
    values = [value.decode("latin-1") for name, value in request.headers() if name.lower() == b"x-forwarded-for"]
    return [_without_port(one.strip()) for one in ",".join(values).split(",") if one.strip()]


def _without_port(text: str) -> str:
    """Some proxies add the client's port: with it no two connections would be one client's."""
    match = _WITH_PORT.fullmatch(text)
    return text if match is None else match["ipv4"] or match["ipv6"]
