"""Quotas of the server API: buckets that nobody configured, each named by its request's key and interval.

This module says what a quota is, and keeps it on the node alone: in the bucket table, beside users and addresses.
A quota's place in there does not depend on its rate, so a new rate keeps the share that is used.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from cpro._fast.buckets import NEVER_NS, REFUSED, USER, BucketTable, Layer, Plan
from cpro._fast.hashing import identity

BY_KEY: Final = 4
"""What the user part of a bucket's key is, beside those of `gate`: a key that a backend chose."""
KEY_CHARACTERS: Final = 1024
LONGEST_MS: Final = 366 * 24 * 3600 * 1000
MOST: Final = 10**9
"""Tokens: of a rate, and of a score."""
MOST_PER_MS: Final = 1000
"""Up to here the ns that a token takes, a whole number, is right to 0.1 %."""

_PLANS: Final = 1024


class Quota(NamedTuple):
    """What a request asks: `score` tokens of the bucket that holds `rate` and refills `rate` per interval."""

    key: str
    interval_ms: int
    rate: int
    score: int = 1
    """0 asks for nothing but how many tokens are left."""
    dry_run: bool = False
    """Decides and answers alike, but spends nothing."""


class Standing(NamedTuple):
    """The answer. `wait_ns` is 0 where `allowed`; -1: never, the score is more than the bucket holds."""

    allowed: bool
    tokens_left: int
    wait_ns: int = 0


Tell = Callable[[Standing | None], None]
"""Hears the answer that could not be given at once; None: the store does not answer."""


class Sizes(NamedTuple):
    """A quota's bucket as limits count it."""

    identity: int
    step_ns: int
    full_ns: int


def sizes_of(interval_ms: int, rate: int) -> Sizes:
    """The same on all nodes. The step is rounded up: a quota may refill late, never early."""
    step_ns = -(-interval_ms * 10**6 // rate)
    return Sizes(identity("quota", str(interval_ms)), step_ns, rate * step_ns)


class LocalQuotas:
    """Quotas of this node; one per worker, exact over all of them. Answers at once."""

    def __init__(self, table: BucketTable) -> None:
        self._table = table

    def configure(self, timeout_s: float) -> None:
        """Nobody waits here."""

    def ask(self, quota: Quota, now_ns: int, tell: Tell) -> Standing | None:
        """Take the tokens, or say when they will be there."""
        plan = _plan(quota.interval_ms, quota.rate)
        if quota.score == 0:
            return Standing(True, self._left(plan, quota, now_ns))
        act = self._look if quota.dry_run else self._table.charge
        if not REFUSED[act(plan, "", quota.key, BY_KEY, now_ns, quota.score)]:
            left = self._left(plan, quota, now_ns)
            return Standing(True, max(0, left - quota.score) if quota.dry_run else left)
        _, wait_ns = self._table.look(plan, "", quota.key, BY_KEY, now_ns, quota.score)
        return Standing(False, self._left(plan, quota, now_ns), -1 if wait_ns == NEVER_NS else max(1, wait_ns))

    async def close(self) -> None:
        """Nothing to hand back."""

    def _look(self, plan: Plan, client: str, key: str, kind: int, now_ns: int, score: int) -> int:
        return self._table.look(plan, client, key, kind, now_ns, score)[0]

    def _left(self, plan: Plan, quota: Quota, now_ns: int) -> int:
        return self._table.tokens_left(plan, "", quota.key, BY_KEY, now_ns)


@lru_cache(_PLANS)
def _plan(interval_ms: int, rate: int) -> Plan:
    sizes = sizes_of(interval_ms, rate)
    return Plan([Layer(block=2, keyed_by=USER, identity=sizes.identity, step_ns=sizes.step_ns, full_ns=sizes.full_ns)])
