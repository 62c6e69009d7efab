"""The store of statuses in Redis: one key a user, and nothing else. No policy, no retries.

`{prefix}.status.{42}` holds the 8 bytes of `status.lua`; the braces are Redis Cluster's, and a user's shard is the one
that Centrifugo would choose.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from pathlib import Path
from struct import Struct
from typing import Final, Protocol, TypeVar, cast

from cpro.errors import StoreError, StoreReplyError
from cpro.redis import Script

from .times import UNKNOWN, Times

Result = TypeVar("Result")

STATUS_SCRIPT: Final = Script(Path(__file__).with_name("status.lua").read_text())

_TIMES: Final = Struct(">II")
_OTHER_SLOT: Final = "same slot"  # what CROSSSLOT says, in Redis and in Valkey
_MOST_KEYS: Final = 5000  # of one command: Redis does nothing else meanwhile


class Shards(Protocol):
    """What of `cpro.redis.Shards` is used here."""

    def __len__(self) -> int: ...

    def shard_of(self, key: str) -> int: ...

    async def evalsha_many(
        self, shard: int, script: Script, calls: Sequence[tuple[bytes, Sequence[bytes | str | int | float]]]
    ) -> list[object]: ...

    async def command(self, shard: int, key: bytes, *command: bytes | str | int | float) -> object: ...

    async def command_many(
        self, shard: int, commands: Sequence[tuple[bytes, tuple[bytes | str | int | float, ...]]]
    ) -> list[object]: ...


class StatusStore:
    """Statuses by shard: whoever asks has sorted the users by `shard_of`."""

    def __init__(self, shards: Shards, prefix: str, expire_ms: int) -> None:
        self._shards = shards
        self._stem = f"{prefix}.status.{{"
        self._expire_ms = expire_ms
        self._scattered: set[int] = set()  # shards that are clusters: a command's keys must lie in one slot

    def __len__(self) -> int:
        return len(self._shards)

    def shard_of(self, user: str) -> int:
        return self._shards.shard_of(user)

    def key(self, user: str) -> bytes:
        return f"{self._stem}{user}}}".encode()

    async def write(self, shard: int, updates: Sequence[tuple[str, Times]]) -> list[StoreError | None]:
        """Move the users' times on; what failed is in its place. Safe to repeat, whatever became of it."""
        calls = [(self.key(user), (_TIMES.pack(*times), self._expire_ms)) for user, times in updates]
        replies = await self._shards.evalsha_many(shard, STATUS_SCRIPT, calls)
        return [reply if isinstance(reply, StoreError) else None for reply in replies]

    async def read(self, shard: int, users: Sequence[str]) -> list[Times]:
        """Of each, in their order. Raises StoreError."""
        stem = self._stem
        found = await self._on_keys(shard, "MGET", "GET", [f"{stem}{user}}}".encode() for user in users])
        unpack = _TIMES.unpack
        return [unpack(value) if isinstance(value, bytes) and len(value) == 8 else UNKNOWN for value in found]

    async def forget(self, shard: int, users: Sequence[str]) -> None:
        """Raises StoreError."""
        await self._on_keys(shard, "UNLINK", "UNLINK", [self.key(user) for user in users])

    async def _on_keys(self, shard: int, verb: str, single: str, keys: list[bytes]) -> list[object]:
        """One command for many keys where one server has them all, else one for each."""
        if shard not in self._scattered:
            try:
                return await self._at_once(shard, verb, keys)
            except StoreReplyError as error:
                if _OTHER_SLOT not in str(error):
                    raise
                self._scattered.add(shard)
        replies = await self._shards.command_many(shard, [(key, (single, key)) for key in keys])
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return replies

    async def _at_once(self, shard: int, verb: str, keys: list[bytes]) -> list[object]:
        parts = [keys[start : start + _MOST_KEYS] for start in range(0, len(keys), _MOST_KEYS)]
        replies = await gathered(self._shards.command(shard, part[0], verb, *part) for part in parts)
        return [value for reply in replies if isinstance(reply, list) for value in reply]


async def gathered(work: Iterable[Awaitable[Result]]) -> list[Result]:
    """All at once; when one fails, the others have come to their end, too."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return cast("list[Result]", done)
