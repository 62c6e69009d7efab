"""Addresses of clients, as limits and counts tell them apart."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_CUSTOMER_BITS: Final = 64


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """None where it is no address. IPv4 in IPv6 is IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=10_000)
def customer_of(text: str) -> str:
    """Whose an address is: in IPv6 its /64, the least that one customer gets (RFC 6177). What is no address stays."""
    address = parse_address(text)
    if address is None:
        return text
    if isinstance(address, IPv4Address):
        return str(address)
    prefix = int(address) >> _CUSTOMER_BITS << _CUSTOMER_BITS
    return f"{IPv6Address(prefix)}/{_CUSTOMER_BITS}"
