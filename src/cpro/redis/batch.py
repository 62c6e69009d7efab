"""Many calls at once, each with one key: grouped by node, one write and one read per node, redirections followed.

Only calls that the server says it has not executed are sent again: after NOSCRIPT, MOVED, ASK and TRYAGAIN.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from redis.exceptions import AskError, NoScriptError

from cpro.errors import StoreError, StoreReplyError, StoreUnavailableError

from .node import Node
from .replies import Next, Reply, next_of, translate
from .script import ASKING, Script
from .shard import Shard

MOST_HOPS: Final = 5
_AGAIN_S: Final = 0.01  # a key that is being migrated arrives in milliseconds

Deliver = Callable[[int, Reply | StoreError], None]


class Hop(NamedTuple):
    """One write to one node."""

    node: Node
    asking: bool = False  # each call is preceded by ASKING
    load: bool = False  # the script goes first
    number: int = 0
    delay_s: float = 0.0


class Batch:
    """`calls`: keys with their packed commands. `deliver` hears of each result as soon as its node has answered."""

    def __init__(
        self, shard: Shard, calls: Sequence[tuple[bytes, bytes]], script: Script | None, deliver: Deliver | None
    ) -> None:
        self._shard = shard
        self._calls = calls
        self._script = script
        self._deliver = deliver
        self._results: list[Reply | StoreError] = [None] * len(calls)

    async def run(self) -> list[Reply | StoreError]:
        """Results in the order of the calls; StoreErrors stand among them and are never raised."""
        try:
            await self._shard.ready()
        except StoreError as error:
            self._fail(range(len(self._calls)), error)
            return self._results
        groups: defaultdict[Node, list[int]] = defaultdict(list)
        for index, (key, _) in enumerate(self._calls):
            try:
                groups[self._shard.node_of(key)].append(index)
            except StoreUnavailableError as error:
                self._fail((index,), error)
        await self._make_all({Hop(node): indexes for node, indexes in groups.items()})
        return self._results

    async def _make_all(self, groups: dict[Hop, list[int]]) -> None:
        if len(groups) == 1:
            await self._make(*groups.popitem())
        elif groups:
            async with asyncio.TaskGroup() as tasks:
                for hop, indexes in groups.items():
                    tasks.create_task(self._make(hop, indexes))

    async def _make(self, hop: Hop, indexes: list[int]) -> None:
        """One hop, and those that follow from it."""
        if hop.number > MOST_HOPS:
            self._fail(indexes, StoreUnavailableError(f"Redis {hop.node.address}: sent on more than {MOST_HOPS} times"))
            return
        if hop.delay_s:
            await asyncio.sleep(hop.delay_s)
        try:
            replies = await hop.node.pipeline(*self._pack(hop, indexes))
        except StoreUnavailableError as error:
            self._shard.suspect(hop.node)
            self._fail(indexes, error)
            return
        refused = replies[0] if hop.load and isinstance(replies[0], Exception) else None
        del replies[: len(replies) - len(indexes) * (2 if hop.asking else 1)]
        again: defaultdict[Hop, list[int]] = defaultdict(list)
        for index, reply in zip(indexes, replies[1::2] if hop.asking else replies, strict=True):
            is_lacking = refused is not None and isinstance(reply, NoScriptError)
            self._take(hop, index, refused if is_lacking else reply, again)
        await self._make_all(again)

    def _pack(self, hop: Hop, indexes: list[int]) -> tuple[bytes, int]:
        """The bytes of a hop, and how many replies they bring."""
        parts = [self._calls[index][1] for index in indexes]
        if hop.asking:
            parts = [part for call in parts for part in (ASKING, call)]
        if hop.load and self._script is not None:
            parts.insert(0, self._script.load)
        return b"".join(parts), len(parts)

    def _take(self, hop: Hop, index: int, reply: Reply | Exception, again: defaultdict[Hop, list[int]]) -> None:
        if not isinstance(reply, Exception):
            self._finish(index, reply)
            return
        following = None if isinstance(reply, StoreError) else self._follow(hop, reply)
        if following is not None:
            again[following].append(index)
            return
        error = _as_ours(reply)
        if not isinstance(error, StoreReplyError):
            self._shard.suspect(hop.node)
        self._finish(index, error)

    def _follow(self, hop: Hop, error: Exception) -> Hop | None:
        number = hop.number + 1
        match next_of(error):
            case Next.LOAD if self._script is not None:
                return hop._replace(load=True, number=number)
            case Next.MOVED if isinstance(error, AskError):
                return Hop(self._shard.on_moved(error.slot_id, error.host, error.port, hop.node), number=number)
            case Next.ASK if isinstance(error, AskError):
                return Hop(self._shard.at(error.host, error.port, hop.node), asking=True, number=number)
            case Next.AGAIN:
                return hop._replace(number=number, delay_s=_AGAIN_S)
        return None

    def _fail(self, indexes: Iterable[int], error: StoreError) -> None:
        for index in indexes:
            self._finish(index, error)

    def _finish(self, index: int, result: Reply | StoreError) -> None:
        self._results[index] = result
        if self._deliver is not None:
            self._deliver(index, result)


def _as_ours(error: Exception) -> StoreError:
    return error if isinstance(error, StoreError) else translate(error)
