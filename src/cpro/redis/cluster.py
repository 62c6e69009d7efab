"""The slots of a Redis Cluster and the masters that serve them (redis.io/docs/reference/cluster-spec)."""

import asyncio
from collections.abc import Iterable
from typing import Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from cpro.config.address import TcpAddress
from cpro.errors import StoreUnavailableError

from .node import Node
from .refresher import Refresher
from .replies import Reply
from .script import pack
from .topology import REFRESH_INTERVAL_S, NewNode
from .wire import Address

NEXT_AFTER_S: Final = 0.05
"""When another node is asked too, if one has not answered by then."""

Ranges = list[tuple[int, int, Address]]
"""First and last slot, and the master's address."""

_CLUSTER_SLOTS: Final = pack("CLUSTER", "SLOTS")


class ClusterSlots:
    """Owns the nodes. The map comes from whichever node answers, and is mended by each MOVED."""

    def __init__(self, seeds: Iterable[TcpAddress], new_node: NewNode, known: Node | None = None) -> None:
        """`known`: a node that turned out to be part of a cluster; it serves what is not known yet."""
        self._seeds = tuple(seeds)
        self._new_node = new_node
        self._nodes: dict[Address, Node] = {known.address: known} if known else {}
        self._slots: list[Node | None] = [known] * REDIS_CLUSTER_HASH_SLOTS
        self._is_known = known is not None
        self._suspects: dict[Address, None] = {}  # asked last, in this order
        self._refresher = Refresher(self._refresh, REFRESH_INTERVAL_S)
        if known:
            self._refresher.request()

    async def ready(self) -> None:
        if not self._is_known:
            await self._refresher.wait()

    def node_of(self, key: bytes) -> Node:
        node = self._slots[key_slot(key)]
        if node is None:
            self._refresher.request()
            raise StoreUnavailableError("Redis Cluster: no node serves this slot")
        return node

    def place_of(self, key: bytes) -> Address | None:
        node = self._slots[key_slot(key)]
        return None if node is None else node.address

    def suspect(self, node: Node) -> None:
        self._suspects.pop(node.address, None)
        self._suspects[node.address] = None
        self._refresher.request()

    def on_moved(self, slot: int, host: str, port: int, asked: Node) -> Node:
        """A node says that another one serves the slot from now on."""
        node = self._slots[slot] = self.at(host, port, asked)
        self._refresher.request()
        return node

    def at(self, host: str, port: int, asked: Node) -> Node:
        """The node of an address that `asked` has named; without a host it is that of `asked`."""
        return self._node_at(_address(host, port, asked))

    async def aclose(self) -> None:
        await self._refresher.aclose()
        await asyncio.gather(*(node.retire() for node in self._nodes.values()))

    def _node_at(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._new_node(address)
        return node

    async def _refresh(self) -> None:
        """Ask one node after the other; one that hangs holds up the next for a moment only."""
        following = iter(self._in_order())
        asking: set[asyncio.Task[Ranges]] = set()
        failures: list[str] = []
        try:
            while True:
                address = next(following, None)
                if address is not None:
                    asking.add(asyncio.create_task(self._ask(self._node_at(address))))
                if not asking:
                    raise StoreUnavailableError("; ".join(failures))
                patience_s = None if address is None else NEXT_AFTER_S
                done, asking = await asyncio.wait(asking, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                ranges = _first(done, failures)
                if ranges is not None:
                    await self._adopt(ranges)
                    self._suspects.clear()
                    return
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    @staticmethod
    async def _ask(node: Node) -> Ranges:
        (reply,) = await node.pipeline(_CLUSTER_SLOTS, 1)
        return _parse_slots(reply, node)

    def _in_order(self) -> list[Address]:
        """Masters, then seeds, then those that have failed."""
        masters = dict.fromkeys(node.address for node in self._slots if node is not None)
        everyone = dict.fromkeys((*masters, *self._seeds))
        return [*(address for address in everyone if address not in self._suspects), *self._suspects]

    async def _adopt(self, ranges: Ranges) -> None:
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, address in ranges:
            slots[first : last + 1] = [self._node_at(address)] * (last + 1 - first)
        self._slots = slots
        self._is_known = True
        used = {address for _, _, address in ranges}
        gone = [address for address in self._nodes if address not in used]
        await asyncio.gather(*(self._nodes.pop(address).retire() for address in gone))


def _first(answered: Iterable[asyncio.Task[Ranges]], failures: list[str]) -> Ranges | None:
    """What one of them knows; why the others don't is added to `failures`."""
    ranges = None
    for task in answered:
        error = task.exception()
        if error is None:
            ranges = task.result()
        elif isinstance(error, StoreUnavailableError):
            failures.append(str(error))
        else:
            raise error
    return ranges


def _parse_slots(reply: Reply | Exception, asked: Node) -> Ranges:
    """First and last slot, and the master's address; StoreUnavailableError when this node can't tell."""
    try:
        ranges = [
            (first, last, _address(_text(master[0]), master[1], asked))
            for first, last, master, *_ in reply  # type: ignore[union-attr]
        ]
    except (TypeError, ValueError, IndexError):
        raise StoreUnavailableError(f"Redis {asked.address}: {reply if isinstance(reply, Exception) else ''}") from None
    if not ranges:
        raise StoreUnavailableError(f"Redis {asked.address}: knows of no slots")
    return ranges


def _text(host: bytes | None) -> str:
    return host.decode() if host else ""


def _address(host: str, port: int, asked: Node) -> Address:
    if host in ("", "?"):  # unknown to the cluster itself: where it was asked
        host = asked.address.host if isinstance(asked.address, TcpAddress) else "127.0.0.1"
    return TcpAddress(host, port)
