"""The store of leases in Redis: requests and answers of `leases` as one script call per user. No policy, no retries.

Every user has exactly one key, so nothing depends on hash tags, whatever the user's id looks like.
"""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from struct import Struct
from typing import Final, Protocol

from cpro.errors import StoreError, StoreReplyError
from cpro.redis import Script

from .leases import Answer, Ask, Balance, Policy, Request
from .outage import Part

LEASE_SCRIPT: Final = Script(Path(__file__).with_name("lease.lua").read_text())

_HEAD: Final = Struct("<BIdd")
_ASK: Final = Struct("<8s8sdddIIIIIIIIII")  # lease.lua unpacks both; a double is exact up to 2^53

Deliver = Callable[[int, Answer | StoreError], None]


class Shards(Protocol):
    """What of `cpro.redis.Shards` is used here."""

    def shard_of(self, key: str) -> int: ...

    def place_of(self, shard: int, key: bytes) -> Hashable: ...

    async def evalsha_many(
        self,
        shard: int,
        script: Script,
        calls: Sequence[tuple[bytes, Sequence[bytes | str | int | float]]],
        deliver: Callable[[int, object], None] | None = None,
    ) -> object: ...


class LeaseStore:
    """Buckets of one kind of key: `what` keeps users, addresses and the API's keys apart."""

    def __init__(self, shards: Shards, prefix: str, what: str = "limit", policy: Policy = Policy()) -> None:  # noqa: B008
        self._shards = shards
        self._stem = f"{prefix}:{what}:"
        self._policy = policy

    def part_of(self, user: str) -> Part:
        """Where a user's requests go: to the shard that Centrifugo would choose, there to the key's server."""
        shard = self._shards.shard_of(user)
        return Part(shard, self._shards.place_of(shard, self.key(user)))

    def key(self, user: str) -> bytes:
        return (self._stem + user).encode()

    async def take(
        self, shard: int, requests: Sequence[Request], deliver: Deliver | None = None
    ) -> list[Answer | StoreError]:
        """Report, return and take, for many users of one shard at once; `deliver` hears of each as soon as it is there.

        A StoreError in an answer's place means that the outcome is unknown: never send the same request again."""
        return await self._call(shard, requests, 1, deliver)

    async def look(
        self, shard: int, requests: Sequence[Request], deliver: Deliver | None = None
    ) -> list[Answer | StoreError]:
        """What `take` would answer, without effect."""
        return await self._call(shard, requests, 0, deliver)

    async def _call(
        self, shard: int, requests: Sequence[Request], act: int, deliver: Deliver | None
    ) -> list[Answer | StoreError]:
        calls = [(self.key(request.user), (pack_request(request, act, self._policy),)) for request in requests]
        answers: list[Answer | StoreError] = [StoreError("Redis: no answer")] * len(calls)

        def hear(index: int, reply: object) -> None:
            answers[index] = parse_answer(reply)
            if deliver is not None:
                deliver(index, answers[index])

        await self._shards.evalsha_many(shard, LEASE_SCRIPT, calls, hear)
        return answers


def pack_request(request: Request, act: int, policy: Policy) -> bytes:
    """The script's only argument."""
    head = _HEAD.pack(act, request.need, request.score, policy.lease_ns // 1000)
    return head + b"".join(map(_pack_ask, request.asks))


def _pack_ask(ask: Ask) -> bytes:
    limit = ask.limit
    return _ASK.pack(
        limit.identity,
        ask.lease_id,
        limit.cost,
        limit.accrual,
        limit.full,
        ask.sequence,
        ask.acked,
        ask.spent,
        ask.aged,
        ask.age_ns // 1000,
        ask.returned,
        ask.held,
        ask.extra,
        ask.pace,
        limit.stream_ns // 1000,
    )


def parse_answer(reply: object) -> Answer | StoreError:
    """The script's answer; errors stay what they are."""
    if isinstance(reply, StoreError):
        return reply
    if not isinstance(reply, list) or len(reply) < 3 or len(reply) % 5 != 3:
        return StoreReplyError(f"Redis: not an answer of the lease script: {reply!r:.100}")
    wait_us = reply[2]
    return Answer(
        is_stale=reply[0] == 1,
        admitted=reply[1],
        wait_ns=wait_us * 1000 if wait_us > 0 else wait_us,
        balances=tuple(Balance(*reply[i : i + 5]) for i in range(3, len(reply), 5)),
    )
