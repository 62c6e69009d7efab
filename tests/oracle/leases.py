"""The store of leases as plain Python: what `lease.lua` must answer, in absolute times and one event at a time."""

from dataclasses import dataclass, field

from cpro.limits.leases import NOBODY, Answer, Ask, Balance, Policy, Request


@dataclass
class Held:
    sequence: int
    granted: int
    returned: int
    outstanding: int
    """Of a stream: its room."""
    expires_us: int
    pace: int = 0
    missing: int = 0
    """How much more of the refill it wanted."""

    @property
    def is_stream(self) -> bool:
        return bool(self.pace or self.missing)


@dataclass
class Bucket:
    full: int
    available: int
    at_us: int
    held: dict[bytes, Held] = field(default_factory=dict)
    gone_s: int = 0
    """Full by then, without a lease, by the numbers of whoever asked last."""

    def out(self) -> int:
        return sum(held.outstanding for held in self.held.values())

    def copy(self) -> "Bucket":
        held = {key: Held(*vars(one).values()) for key, one in self.held.items()}
        return Bucket(self.full, self.available, self.at_us, held)

    def refill(self, until_us: int, ask: Ask, *, lost: bool) -> None:
        room = self.full - self.out() * ask.limit.cost
        shares = sum(-(-ask.limit.accrual * held.pace // 16) for held in self.held.values())
        accrued = 0 if lost else (until_us - self.at_us) * max(0, ask.limit.accrual - shares)
        self.available = max(0, min(self.available + accrued, room))
        self.at_us = until_us

    def settle(self, now_us: int, ask: Ask) -> None:
        if ask.limit.full != self.full:
            self.available = int(self.available / self.full * ask.limit.full)  # as a double, like Lua
            self.full = ask.limit.full
        if now_us < self.at_us:  # the server's clock stepped back; leases last as long as they did
            for held in self.held.values():
                held.expires_us -= self.at_us - now_us
            self.at_us = now_us
        known = self.held.get(ask.lease_id)
        if known is not None and known.expires_us <= now_us:
            known = None
        lost = known is not None and known.sequence < ask.acked
        events = [(held.expires_us, held, held.outstanding) for held in self.held.values() if held.expires_us <= now_us]
        if known is not None and not known.is_stream:
            aged = min(known.outstanding, ask.aged - (known.granted - known.returned - known.outstanding))
            if aged > 0:
                events.append((max(self.at_us, now_us - ask.age_ns // 1000), known, aged))
        for when_us, held, tokens in sorted(events, key=lambda event: event[0]):
            self.refill(when_us, ask, lost=lost)
            held.outstanding -= tokens
            if held.expires_us <= now_us:
                held.pace = 0
        self.refill(now_us, ask, lost=lost)
        self.held = {key: held for key, held in self.held.items() if held.expires_us > now_us}


class StoreOracle:
    """Users' buckets; `take` and `look` are what the script does."""

    def __init__(self, policy: Policy) -> None:
        self.lease_us = policy.lease_ns // 1000
        self.users: dict[str, dict[bytes, Bucket]] = {}

    def call(self, now_us: int, request: Request, *, act: bool = True) -> Answer:
        stored = self.users.setdefault(request.user, {})
        work: list[tuple[Ask, Bucket, Held | None]] = []
        for ask in request.asks:
            bucket = stored.get(ask.limit.identity)
            gone = bucket is None or bucket.gone_s <= now_us // 10**6
            bucket = Bucket(ask.limit.full, ask.limit.full, now_us) if gone else bucket.copy()
            bucket.settle(now_us, ask)
            work.append((ask, bucket, bucket.held.get(ask.lease_id)))
        seen = [0 if held is None else held.sequence for _, _, held in work]
        reports = [ask.lease_id != NOBODY for ask, _, _ in work]
        stale = any(
            report and known >= ask.sequence for (ask, _, _), known, report in zip(work, seen, reports, strict=True)
        )
        admitted, extras, paces = 0, [0] * len(work), [0] * len(work)
        had = [0 if held is None else held.pace for _, _, held in work]
        if not stale:
            work = [
                (ask, bucket, None if ask.lease_id == NOBODY else self._report(now_us, ask, bucket, held))
                for ask, bucket, held in work
            ]
            admitted = min([request.need, *(b.available // (a.limit.cost * request.score) for a, b, _ in work)])
            for ask, bucket, held in work:
                bucket.available -= admitted * request.score * ask.limit.cost
                if held is not None and held.is_stream:
                    bucket.refill(now_us, ask, lost=True)  # what came back may find no room
            if admitted == request.need:
                extras = self._lease(work)
            for place, (ask, bucket, held) in enumerate(work):
                if held and ask.pace and not held.outstanding and not held.is_stream:
                    extras[place], paces[place] = self._stream(now_us, ask, bucket, held, bool(had[place]))
        answer = Answer(
            is_stale=stale,
            admitted=admitted,
            wait_ns=self._wait_ns(request, work),
            balances=tuple(
                Balance(0 if held is None else held.granted, extra, bucket.available // ask.limit.cost, known, pace)
                for (ask, bucket, held), extra, known, pace in zip(work, extras, seen, paces, strict=True)
            ),
        )
        if act and not stale and (admitted or any(reports)):
            for ask, bucket, _ in work:
                lasts_us = max([0, *(held.expires_us - now_us for held in bucket.held.values())])
                full_us = (bucket.full - bucket.available) / ask.limit.accrual
                bucket.gone_s = now_us // 10**6 + 2 + int((full_us + lasts_us) / 10**6)
            for identity in [key for key, bucket in stored.items() if bucket.gone_s <= now_us // 10**6]:
                del stored[identity]  # for good, even if the clock steps back
            stored.update((ask.limit.identity, bucket) for ask, bucket, _ in work)
        return answer

    def _report(self, now_us: int, ask: Ask, bucket: Bucket, held: Held | None) -> Held:
        tokens, used = 0, ask.spent + ask.returned
        if held is not None and held.is_stream:
            back = max(0, min(ask.returned - held.returned, held.outstanding))
            bucket.available += back * ask.limit.cost
            held.sequence, held.granted, held.returned = ask.sequence, used, ask.returned
            if not ask.held:
                held.outstanding = held.pace = held.missing = 0
                held.expires_us = now_us + self.lease_us
            return held
        if held is not None:
            back = max(0, min(ask.returned - held.returned, held.outstanding))
            tokens = max(0, min(held.outstanding - back, held.granted - used))
            overspent = max(0, used - held.granted)
            bucket.available = max(0, bucket.available + (back - overspent) * ask.limit.cost)
        adopted = max(0, min(ask.held - tokens, bucket.available // ask.limit.cost))
        bucket.available -= adopted * ask.limit.cost
        tokens += adopted
        bucket.held[ask.lease_id] = Held(ask.sequence, used + tokens, ask.returned, tokens, now_us + self.lease_us)
        return bucket.held[ask.lease_id]

    def _lease(self, work: list[tuple[Ask, Bucket, Held | None]]) -> list[int]:
        most = []
        for ask, bucket, held in work:
            if held is not None and ask.extra and not held.is_stream:
                share = bucket.full // ask.limit.cost * 2 // (3 * len(bucket.held)) - held.outstanding
                most.append(max(0, min(share, bucket.available // ask.limit.cost)))
        extras = []
        for ask, bucket, held in work:
            extras.append(0 if held is None or held.is_stream else min([ask.extra, *most]))
            if held is not None:
                held.granted += extras[-1]
                held.outstanding += extras[-1]
                bucket.available -= extras[-1] * ask.limit.cost
        return extras

    def _stream(self, now_us: int, ask: Ask, bucket: Bucket, held: Held, had_one: bool) -> tuple[int, int]:
        tokens = bucket.full // ask.limit.cost
        others = [other for other in bucket.held.values() if other is not held]
        short = [other for other in others if other.missing]
        wants, free = min(16, ask.pace), 16 - sum(other.pace for other in others)
        room = tokens - sum(other.outstanding for other in others)
        fair = 16 // min(len(short) + 1, tokens)
        pace = max(0, min(wants, max(free - sum(other.missing for other in short), min(free, fair))))
        if room < 1 or (had_one and tokens <= len(short)):
            pace = 0
        held.pace, held.missing = pace, wants - pace
        window_us = ask.limit.stream_ns // 1000
        held.expires_us = now_us + window_us
        if pace:
            held.outstanding = min(room, max(1, tokens // (len(short) + 1)))
            held.expires_us += self._surplus_us(ask, pace)
            at_once = min(held.outstanding, bucket.available // ask.limit.cost)
            held.granted += at_once
            bucket.available -= at_once * ask.limit.cost
        bucket.refill(now_us, ask, lost=True)
        if pace:
            return held.outstanding, pace
        ends = [other.expires_us - now_us - self._surplus_us(ask, other.pace) for other in others if other.pace]
        return max(0, min(ends, default=0)), -1

    @staticmethod
    def _surplus_us(ask: Ask, pace: int) -> int:
        """By how much a stream lasts longer than for its holder."""
        return ask.limit.stream_ns // 1000 // 2 + -(-ask.limit.cost // ask.limit.accrual) * -(-48 // pace)

    def _wait_ns(self, request: Request, work: list[tuple[Ask, Bucket, Held | None]]) -> int:
        waits = [0]
        for ask, bucket, _ in work:
            cost = ask.limit.cost * request.score
            if cost > ask.limit.full:
                return -1
            waits.append(-((bucket.available - cost) // ask.limit.accrual) * 1000)
        return max(waits)
