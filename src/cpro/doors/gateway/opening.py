"""A connection that begins."""

from typing import NamedTuple

from cpro._fast.http1 import Request
from cpro.doors.gateway.peers import Peer


class Opening(NamedTuple):
    request: Request
    peer: Peer
    name: str
    """What the gateway calls the connection."""
