"""The clients of a deployment, and which of them has which key."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from cpro._fast.hashing import fnv1a64, jump
from cpro.config.redis_address import Deployment
from cpro.errors import StoreError, StoreTimeoutError

from .batch import Batch, Deliver
from .replies import Reply, translate
from .script import PING, Argument, Script, pack
from .shard import Shard
from .wire import Address

CONNECTIONS: Final = 8
"""Per node: as many pipelines can be under way at once; more of them wait for their turn."""


class Shards:
    """Belongs to one event loop; opens connections as calls need them.

    A call is sent once. It is sent again only when the server says that it has not executed it (NOSCRIPT, MOVED,
    ASK, TRYAGAIN); after a timeout never. Failed nodes are found out anew in the background, so calls recover by
    themselves; what to do meanwhile is up to the caller.
    Cancelling a call closes the connections it is using.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        on_round_trip: Callable[[int], None] = lambda shard: None,
        most_connections: int = CONNECTIONS,
    ) -> None:
        """`on_round_trip(shard)` is told of every write of commands to a shard, `most_connections` are per node.

        ValueError when a TLS object is unusable.
        """
        self.prefix = deployment.prefix
        self._shards = tuple(
            Shard(description, most_connections, partial(on_round_trip, number))
            for number, description in enumerate(deployment.shards)
        )

    def __len__(self) -> int:
        return len(self._shards)

    def shard_of(self, key: str) -> int:
        """Centrifugo's: jump(fnv1a64(key), number of shards); `key` without prefix, such as the user's id."""
        return jump(fnv1a64(key.encode()), len(self._shards))

    def place_of(self, shard: int, key: bytes) -> Address | None:
        """The server of a cluster that a key depends on, as far as is known; None: the shard as a whole.

        Keys of one place fail together. After a failover the same key has another place.
        """
        return self._shards[shard].place_of(key)

    async def evalsha(self, shard: int, script: Script, key: bytes, args: Sequence[Argument] = ()) -> Reply:
        """One script on one key. Raises StoreUnavailableError, StoreTimeoutError or StoreReplyError."""
        return _unwrap(await self.evalsha_many(shard, script, [(key, args)]))

    async def evalsha_many(
        self,
        shard: int,
        script: Script,
        calls: Sequence[tuple[bytes, Sequence[Argument]]],
        deliver: Deliver | None = None,
    ) -> list[Reply | StoreError]:
        """Many calls at once, each a key with its arguments: one write and one read for every node concerned.

        Results stand in the order of the calls; one that failed is a StoreError in its place. `deliver(index, result)`
        hears of each as soon as its node has answered, so that none waits for a node that hangs.
        """
        packed = [(key, script.call(key, args)) for key, args in calls]
        return await Batch(self._shards[shard], packed, script, deliver).run()

    async def command(self, shard: int, key: bytes, *command: Argument) -> Reply:
        """One plain command with one key, `command(0, key, "HMGET", key, "a")`. Raises as `evalsha`."""
        return _unwrap(await self.command_many(shard, [(key, command)]))

    async def command_many(
        self, shard: int, commands: Sequence[tuple[bytes, tuple[Argument, ...]]], deliver: Deliver | None = None
    ) -> list[Reply | StoreError]:
        """Many plain commands, each with its key; results as those of `evalsha_many`."""
        packed = [(key, pack(*command)) for key, command in commands]
        return await Batch(self._shards[shard], packed, None, deliver).run()

    async def ping(self, shard: int) -> None:
        """Raises StoreError when the shard (of a cluster: one of its nodes) does not answer."""
        one = self._shards[shard]
        await one.ready()
        (reply,) = await one.node_of(b"").pipeline(PING, 1)
        if isinstance(reply, Exception):
            raise reply if isinstance(reply, StoreTimeoutError) else translate(reply)

    async def aclose(self) -> None:
        """Closes everything; calls under way still get their replies."""
        await asyncio.gather(*(shard.aclose() for shard in self._shards))


def _unwrap(results: list[Reply | StoreError]) -> Reply:
    (result,) = results
    if isinstance(result, StoreError):
        raise result
    return result
