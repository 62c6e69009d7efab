"""One shard of a deployment: nodes that hold one share of the keys, whatever way they are found."""

from collections.abc import Callable

from cpro.config.redis_url import Access, Cluster, Sentinel, Standalone
from cpro.config.redis_url import Shard as Description

from .cluster import ClusterSlots
from .node import Node
from .topology import NewNode, SentinelMaster, Single, Topology
from .wire import Address, Dialer, dialer

_SENTINEL_CONNECTIONS = 1


class Shard:
    """Opens nothing before the first call. A cluster behind a plain address is noticed by its first MOVED."""

    def __init__(self, description: Description, most_connections: int, on_sent: Callable[[], None]) -> None:
        """`most_connections` per node; ValueError when a TLS object is unusable."""
        db = 0 if isinstance(description, Cluster) else description.db
        self._new_node = _maker(description.access, dialer(description.access, db), most_connections, on_sent)
        self._topology = self._topology_of(description)

    async def ready(self) -> None:
        await self._topology.ready()

    def node_of(self, key: bytes) -> Node:
        return self._topology.node_of(key)

    def place_of(self, key: bytes) -> Address | None:
        return self._topology.place_of(key)

    def suspect(self, node: Node) -> None:
        self._topology.suspect(node)

    def on_moved(self, slot: int, host: str, port: int, asked: Node) -> Node:
        return self._cluster(asked).on_moved(slot, host, port, asked)

    def at(self, host: str, port: int, asked: Node) -> Node:
        return self._cluster(asked).at(host, port, asked)

    async def aclose(self) -> None:
        await self._topology.aclose()

    def _topology_of(self, description: Description) -> Topology:
        match description:
            case Standalone(address):
                return Single(address, self._new_node)
            case Sentinel(sentinel_access=access):
                new_sentinel = _maker(access, dialer(access), _SENTINEL_CONNECTIONS, _uncounted)
                return SentinelMaster(description, self._new_node, new_sentinel)
            case Cluster(seeds):
                return ClusterSlots(seeds, self._new_node)

    def _cluster(self, asked: Node) -> ClusterSlots:
        if not isinstance(self._topology, ClusterSlots):
            self._topology = ClusterSlots((), self._new_node, known=asked)
        return self._topology


def _maker(access: Access, dial: Dialer, most_connections: int, on_sent: Callable[[], None]) -> NewNode:
    def new_node(address: Address) -> Node:
        return Node(address, dial, access.connect_timeout_s, access.io_timeout_s, most_connections, on_sent)

    return new_node


def _uncounted() -> None:
    pass
