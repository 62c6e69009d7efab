"""The real lease script on a real Redis, in a time of the test's own.

Production reads the server's clock; here that one expression is replaced in the script's text by two more arguments.
"""

import redis

from cpro.errors import StoreError
from cpro.limits.leases import Answer, Policy, Request
from cpro.limits.redis_store import LEASE_SCRIPT, pack_request, parse_answer

CLOCK = "call('TIME')"
assert LEASE_SCRIPT.text.count(CLOCK) == 1
TIMED_TEXT = LEASE_SCRIPT.text.replace(CLOCK, "{ARGV[2], ARGV[3]}")


class TimedStore:
    """`call` as production does it, but at `now_us`. A key's expiry is checked in that time too."""

    def __init__(self, client: redis.Redis, policy: Policy):
        self.client = client
        self.policy = policy
        self.sha = client.script_load(TIMED_TEXT)
        self.expires_us: dict[str, int] = {}
        self.calls = 0
        client.flushdb()

    def call(self, now_us: int, request: Request, *, act: bool = True) -> Answer:
        key = request.user
        if self.has_expired(key, now_us):
            self.lose(key)
        seconds, micros = divmod(now_us, 10**6)
        pipeline = self.client.pipeline(transaction=False)
        pipeline.evalsha(self.sha, 1, key, pack_request(request, int(act), self.policy), seconds, micros)
        pipeline.pttl(key)
        pipeline.persist(key)  # or it would expire in the time of the machine that runs the test
        reply, ttl_ms, _ = pipeline.execute()
        self.calls += 1
        if ttl_ms > 0:
            self.expires_us[key] = now_us + ttl_ms * 1000
        answer = parse_answer(reply)
        assert not isinstance(answer, StoreError)
        return answer

    def has_expired(self, key: str, now_us: int) -> bool:
        return self.expires_us.get(key, now_us) < now_us

    def lose(self, key: str) -> None:
        """Evicted, flushed, or expired."""
        self.client.delete(key)
        self.expires_us.pop(key, None)

    def snapshot(self, key: str) -> tuple[bytes | None, int | None]:
        return self.client.get(key), self.expires_us.get(key)

    def roll_back(self, key: str, snapshot: tuple[bytes | None, int | None]) -> None:
        """As a replica does that lacks its master's last writes."""
        self.lose(key)
        value, expires_us = snapshot
        if value is not None and expires_us is not None:
            self.client.set(key, value)
            self.expires_us[key] = expires_us
