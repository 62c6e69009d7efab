"""Which node a key is at: one server, or the master that Sentinels name. `cluster` is the third kind."""

from collections.abc import Callable
from typing import Final, Protocol

from cpro.config.address import TcpAddress
from cpro.config.redis_url import Sentinel
from cpro.errors import StoreUnavailableError

from .node import Node
from .refresher import Refresher
from .script import pack
from .wire import Address

REFRESH_INTERVAL_S: Final = 0.25
"""Shortest time between two questions for the topology: a failover is seen that soon after it has happened."""

RECHECK_INTERVAL_S: Final = 1.0
"""While in use, Sentinels are asked this often: after a failover by hand the old master takes writes for seconds."""

NewNode = Callable[[Address], Node]

_ROLE: Final = pack("ROLE")


class Topology(Protocol):
    async def ready(self) -> None:
        """Finds out who serves what, if nothing is known yet; StoreError when nobody tells."""

    def node_of(self, key: bytes) -> Node:
        """Once ready."""

    def place_of(self, key: bytes) -> Address | None:
        """Which of several servers a key depends on, as far as is known; None where all keys depend on the same."""

    def suspect(self, node: Node) -> None:
        """A call failed there: find out in the background whether something has changed."""

    async def aclose(self) -> None: ...


class Single:
    """One server at a fixed address."""

    def __init__(self, address: Address, new_node: NewNode) -> None:
        self.node = new_node(address)

    async def ready(self) -> None:
        pass

    def node_of(self, key: bytes) -> Node:
        return self.node

    def place_of(self, key: bytes) -> None:
        return None

    def suspect(self, node: Node) -> None:
        pass

    async def aclose(self) -> None:
        await self.node.retire()


class SentinelMaster:
    """The master of one name; who it is, Sentinels say (redis.io/docs/reference/sentinel-clients)."""

    def __init__(self, shard: Sentinel, new_node: NewNode, new_sentinel: NewNode) -> None:
        self._name = shard.master_name
        self._question = pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        self._sentinels = [new_sentinel(address) for address in shard.sentinels]  # the last to answer first
        self._new_node = new_node
        self._node: Node | None = None
        self._refresher = Refresher(self._refresh, REFRESH_INTERVAL_S)

    async def ready(self) -> None:
        if self._node is None:
            await self._refresher.wait()

    def node_of(self, key: bytes) -> Node:
        if self._node is None:
            raise StoreUnavailableError("Redis: no master known yet")
        if self._refresher.is_older_than(RECHECK_INTERVAL_S):
            self._refresher.request()
        return self._node

    def place_of(self, key: bytes) -> None:
        return None

    def suspect(self, node: Node) -> None:
        if node is self._node:
            self._refresher.request()

    async def aclose(self) -> None:
        await self._refresher.aclose()
        for node in (*self._sentinels, *filter(None, [self._node])):
            await node.retire()

    async def _refresh(self) -> None:
        failures = []
        for sentinel in tuple(self._sentinels):
            try:
                await self._adopt(await self._ask(sentinel))
            except StoreUnavailableError as error:
                failures.append(str(error))
            else:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return
        raise StoreUnavailableError("; ".join(failures))

    async def _ask(self, sentinel: Node) -> TcpAddress:
        (reply,) = await sentinel.pipeline(self._question, 1)
        if reply is None:
            raise StoreUnavailableError(f"Sentinel {sentinel.address}: knows no master named {self._name}")
        if not isinstance(reply, list) or len(reply) != 2:
            raise StoreUnavailableError(f"Sentinel {sentinel.address}: {reply}")
        return TcpAddress(reply[0].decode(), int(reply[1]))

    async def _adopt(self, address: TcpAddress) -> None:
        """Takes over a master if it says itself that it is one: Sentinels may be late."""
        old = self._node
        if old is not None and old.address == address:
            return
        node = self._new_node(address)
        try:
            (role,) = await node.pipeline(_ROLE, 1)
            if isinstance(role, list) and role and role[0] != b"master":
                raise StoreUnavailableError(f"Redis {address}: is a {role[0].decode()}, not the master")
            if isinstance(role, StoreUnavailableError):
                raise role
        except BaseException:
            await node.retire()
            raise
        self._node = node
        if old is not None:
            await old.retire()
