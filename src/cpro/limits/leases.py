"""What a holder of leases (a cpro node) knows and asks, as arithmetic: no clock, no I/O. docs/leases.md has the rules.

Totals are cumulative, so that a lost, repeated or late message changes nothing. `granted` is what the store leased,
`returned` what went back, and what was spent is what is missing: `granted - returned - tokens`. So spending is one
decrement, and a step that never happened (a worker died in the middle) counts as spent, never the reverse.

A *stream* is what a holder gets of a small bucket that is empty: a part of its refill and of its room, until the
deadline. `tokens` has all of it from the beginning. The last one accrues a gap before the deadline, those before it a
gap apart; of those that have accrued and are not spent only `room` remain.

One lease is one record of the shared table. `tokens` and `deadline_ns` belong together (one 16-byte compare-and-swap);
everything else belongs to whoever has the flight. Where two fields change, they do so in the order written here.
"""

from dataclasses import dataclass
from math import gcd
from typing import Final, NamedTuple

NOBODY: Final = bytes(8)
"""The lease id of a request that leases nothing."""

_SECOND_NS: Final = 10**9
_PAUSE_NS: Final = _SECOND_NS // 4
_STREAM_STEPS: Final = 16
_MUCH_DEMAND: Final = 4
"""A small bucket streams to a holder that is asked for so many times its refill."""
_TAKES_TURNS: Final = 4
"""Below so many tokens nodes take turns, each for twice as long."""
_PARTS: Final = 16
"""A stream is so many parts of the refill at most: all of it."""
_MOST_NS: Final = 2**60
_MOST_UNITS: Final = 2**52  # a Lua number is exact up to 2^53
_MOST_TOKENS: Final = 2**30  # in one lease, so that its totals fit into 32 bits
_NEW_LIFE_AT: Final = 2**31


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things take. The defaults are those of docs/leases.md."""

    lease_ns: int = 10 * _SECOND_NS
    """From the store's answer until it counts as spent what it has not heard of."""
    margin_ns: int = _SECOND_NS // 2
    """So much earlier the holder stops spending."""
    period_ns: int = 3 * _SECOND_NS
    """A lease is for the demand of this long."""
    lead_ns: int = _SECOND_NS // 20
    """A refill is asked for when what is in hand lasts no longer than this."""
    pause_ns: int = _PAUSE_NS
    """An empty bucket is asked again once the refill of this long is there."""


class Limit:
    """A bucket as the store counts it: a token is `cost` units, `accrual` units accrue in a µs. Immutable."""

    __slots__ = ("accrual", "chunk", "cost", "full", "identity", "step_ns", "stream_ns", "tokens")

    def __init__(self, identity: int, step_ns: int, full_ns: int, pause_ns: int = _PAUSE_NS) -> None:
        """`full_ns / step_ns` tokens of which one refills every `step_ns`, as in a plan's layer.

        What would not fit (buckets that take weeks to fill) refills up to 0.1 % slower, or holds 2^52 units only.
        """
        if not 1 <= step_ns <= full_ns <= _MOST_NS:
            raise ValueError(
                f"a bucket holds at least a token and refills in 36 years: {full_ns} ns, {step_ns} ns each"
            )
        tokens = full_ns // step_ns
        if tokens * (step_ns // gcd(step_ns, 1000)) > _MOST_UNITS and step_ns >= 10**6:
            step_ns = -(-step_ns // 1000) * 1000
        common = gcd(step_ns, 1000)
        self.identity: Final = identity.to_bytes(8)
        self.step_ns: Final = step_ns
        self.chunk: Final = max(1, min(pause_ns // step_ns, tokens // 2))
        """What refills between two asks of an empty bucket. Half of a small one: what refills before somebody asks must
        find room, or it would be lost."""
        fits = tokens * (step_ns // common) * _PARTS <= _MOST_UNITS
        is_small = self.chunk * step_ns < pause_ns * 4 // 5 and fits  # one of millions of tokens is not, however slow
        takes_turns = tokens < _TAKES_TURNS
        self.stream_ns: Final = max(pause_ns, _STREAM_STEPS * step_ns) << takes_turns if is_small else 0
        """How long a stream lasts; 0 where a chunk takes long enough for an empty bucket not to be asked too often."""
        parts = _PARTS if self.stream_ns else 1
        self.cost: Final = step_ns // common * parts
        self.accrual: Final = 1000 // common * parts
        self.tokens: Final = min(tokens, _MOST_UNITS // self.cost)
        self.full: Final = self.tokens * self.cost


@dataclass(slots=True)
class Lease:
    """One holder's share of one bucket: a 64-byte record of four words, each changed by 16-byte compare-and-swap.

    `_fast.leaserecord` says how they are packed; there, `tokens` may go down by itself between two steps here."""

    start: int
    """`birth` of this record: with the holder's id it names the lease to the store."""
    tokens: int = 0
    deadline_ns: int = 0
    sequence: int = 0
    """Of the last request, whatever became of it."""
    flight: int = 0
    """Who is asking the store about this lease (a process id), 0: nobody."""
    spent_then: int = 0
    """What was spent when the store was asked last."""
    half_ns: int = 0
    """When half of what was in hand after that had been spent; 0: not yet, or not noticed (which is always safe)."""
    granted: int = 0
    returned: int = 0
    acked: int = 0
    """The sequence answered last."""
    demand_mtps: int = 0
    """Thousandths of a token per second, exponentially weighted over `period_ns`."""
    asked_ns: int = 0
    next_ask_ns: int = 0
    """Not before this; 0 unless the bucket was empty."""
    pace: int = 0
    """How many sixteenths of the refill stream here; 0: no stream, all `tokens` are in hand."""
    room: int = 0
    """Of a stream: how many may be in hand at once."""
    gap_ns: int = 0
    """Of a stream: from one token to the next."""
    last_ns: int = 0
    """Of a stream: no token may be spent from then on."""

    @property
    def spent(self) -> int:
        return self.granted - self.returned - self.tokens

    def in_hand(self, now_ns: int) -> int:
        """Tokens that may be spent now."""
        if now_ns >= self.deadline_ns:
            return 0
        return max(0, min(self.room, self.tokens - self.to_come(now_ns))) if self.pace else self.tokens

    def _spend_of_stream(self, tokens: int, now_ns: int) -> None:
        """If its room was full, nothing accrued of late: the next token begins to do so now, and all end later."""
        to_come = self.to_come(now_ns)
        if self.tokens - to_come < self.room:
            self.tokens -= tokens
            return
        if to_come:
            to_come -= now_ns + (to_come + 1) * self.gap_ns > self.last_ns
            self.deadline_ns = now_ns + (to_come + 1) * self.gap_ns - 1
        self.tokens = self.room + to_come - tokens

    def to_come(self, now_ns: int) -> int:
        """Of a stream: tokens that have not accrued yet."""
        return (self.deadline_ns - now_ns) // self.gap_ns

    def accrued(self, now_ns: int, step_ns: int) -> int:
        """Of a stream: what is in hand. (A record has no place for its `gap_ns`; it follows from the bucket's step.)"""
        return self.in_hand(now_ns)

    def begin_stream(self, tokens: int, pace: int, room: int, limit: Limit, now_ns: int) -> None:
        """Tokens to come, beside those in hand."""
        self.granted += tokens
        self.pace, self.room, self.gap_ns = pace, room, gap_ns(limit.step_ns, pace)
        self.last_ns = self.asked_ns + longest_ns(limit, pace)
        self.tokens, self.deadline_ns = self.tokens + tokens, now_ns + (tokens + 1) * self.gap_ns - 1

    def drop(self) -> None:
        """Nothing in hand any more: what was counts as spent."""
        self.tokens = self.pace = 0

    def spend(self, tokens: int, now_ns: int) -> bool:
        """Take `tokens` from what is in hand. (A worker: compare-and-swap in the record.)

        Whoever spends the last of the first half notes the time, read after spending. (Compare-and-swap of the second
        word as it was before spending, with nobody in flight: a note that comes too late is not written.)
        """
        if self.in_hand(now_ns) < tokens:
            return False
        if self.pace:
            self._spend_of_stream(tokens, now_ns)
            return True
        self.tokens -= tokens
        if not self.half_ns and not self.flight and self.tokens <= self.half < self.tokens + tokens:
            self.half_ns = now_ns
        return True

    @property
    def half(self) -> int:
        return (self.granted - self.returned - self.spent_then) // 2


class Ask(NamedTuple):
    """What is asked of one bucket, with the holder's report."""

    limit: Limit
    lease_id: bytes = NOBODY
    start: int = 0
    sequence: int = 0
    acked: int = 0
    spent: int = 0
    aged: int = 0
    """So much of `spent` was spent `age_ns` before this was sent, or earlier."""
    age_ns: int = 0
    returned: int = 0
    held: int = 0
    """Tokens, in hand or to come, that stay with the holder."""
    extra: int = 0
    pace: int = 0
    """How many sixteenths of the refill are wanted as a stream."""
    sent_ns: int = 0


class Request(NamedTuple):
    """One call of the store: `need` operations of `score` tokens each, paid from every bucket asked."""

    user: str
    asks: tuple[Ask, ...]
    need: int = 0
    score: int = 1


class Balance(NamedTuple):
    """The store's answer about one bucket."""

    granted: int
    """The lease's total."""
    extra: int
    """How much of it this request brought; of a stream: its room, and the total says what is in hand at once; with a
    pace of -1: µs until another's stream has ended."""
    left: int
    """Whole tokens still available to anybody."""
    seen: int
    """The sequence the store knew before this request; 0: it did not know the lease."""
    pace: int = 0
    """Sixteenths of the refill that stream to the holder from now on; -1: it was refused because others have all."""


class Answer(NamedTuple):
    is_stale: bool
    """A later request, or this one, was answered before: nothing was done."""
    admitted: int
    """How many of `need` may go ahead."""
    wait_ns: int
    """Until one more might be admitted; -1: never, its score is more than a bucket holds."""
    balances: tuple[Balance, ...]


def lease_id(holder_id: bytes, start: int) -> bytes:
    """Eight bytes that no other lease on the bucket has. `holder_id` is random and lives as long as the table."""
    mixed = int.from_bytes(holder_id[:8]) ^ (start * 0x9E3779B97F4A7C15)
    return (mixed % 2**64 or 1).to_bytes(8)


def demand_mtps(lease: Lease, now_ns: int, policy: Policy) -> int:
    """The demand as of now."""
    if not lease.asked_ns:
        return 0
    consumed = lease.spent - lease.spent_then
    elapsed_ns = max(0, now_ns - lease.asked_ns)
    return (lease.demand_mtps * policy.period_ns + consumed * 10**12) // (policy.period_ns + elapsed_ns)


def target(lease: Lease, limit: Limit, now_ns: int, policy: Policy) -> int:
    """How many tokens to have in hand. Never all: what is out holds up refill until it is reported."""
    wanted = demand_mtps(lease, now_ns, policy) * policy.period_ns // 10**12
    if lease.next_ask_ns:
        wanted = min(wanted, 2 * limit.chunk)  # what refilled meanwhile, and what did while asking
    return min(wanted, limit.tokens * 2 // 3, _MOST_TOKENS)


def wants_stream(lease: Lease, limit: Limit, now_ns: int, need: int, refused: int) -> bool:
    """Whether a small bucket is so much in demand that it shall stream here: many times what refills is asked for, or
    all that streamed until now was spent."""
    if lease.pace:
        return not lease.tokens
    tried = lease.spent - lease.spent_then + refused + need
    return refused > 0 and tried * limit.step_ns >= _MUCH_DEMAND * (now_ns - lease.asked_ns)


def gap_ns(step_ns: int, pace: int) -> int:
    """From one token of a stream to the next; a clock that is three percent fast keeps within the pace."""
    return -(-step_ns * _PARTS * 32 // (31 * pace))


def longest_ns(limit: Limit, pace: int) -> int:
    """From asking for a stream until its holder has to end it; the store (lease.lua) waits a fifteenth longer.

    More than the tokens take, so that neither an answer that is late nor moments without demand cost any."""
    return (limit.stream_ns * 3 // 2 + 3 * _PARTS * limit.step_ns // pace) * 15 // 16


def may_ask(lease: Lease, now_ns: int) -> bool:
    """False while the bucket is known to be empty, or streams: operations without a token are refused unasked."""
    streams = lease.pace and lease.tokens and now_ns < lease.deadline_ns
    return now_ns >= lease.next_ask_ns and not streams


def is_due(lease: Lease, limit: Limit, now_ns: int, policy: Policy) -> bool:
    """After a charge: whether to ask in the background, because what is in hand runs out soon."""
    if now_ns >= lease.deadline_ns or not may_ask(lease, now_ns):
        return False
    is_low = not lease.pace and lease.tokens <= lease.demand_mtps * policy.lead_ns // 10**12
    return is_low and target(lease, limit, now_ns, policy) > lease.tokens


def is_over(lease: Lease, now_ns: int, policy: Policy) -> bool:
    """For a sweep, once a second or so: whether to report, renew, and give back what is not needed."""
    return lease.in_hand(now_ns) > 0 and now_ns - lease.asked_ns >= policy.period_ns


def is_idle(lease: Lease, now_ns: int, policy: Policy) -> bool:
    """Nothing was spent for a whole period: what is in hand belongs to others."""
    return now_ns - lease.asked_ns >= policy.period_ns and lease.spent <= lease.spent_then


def birth(now_ns: int) -> int:
    """Tells a record from those before it on the same bucket, for 18 minutes: longer than the store remembers them."""
    return (now_ns >> 8) % 2**32


def begin(lease: Lease, now_ns: int) -> None:
    """A new life, for a record whose totals are lost or too large: what was in hand expires at the store."""
    lease.drop()
    lease.granted = lease.returned = lease.spent_then = lease.half_ns = 0
    lease.start = birth(now_ns)


def build_ask(
    lease: Lease,
    limit: Limit,
    holder_id: bytes,
    now_ns: int,
    policy: Policy,
    need: int = 0,
    *,
    refused: int = 0,
    leave: bool = False,
) -> Ask:
    """The next request about a lease. The caller has the flight, and sends it now.

    `need` operations wait because some bucket of theirs has too little in hand. What this one has goes back for them,
    so that the store decides about all buckets at once. So many as were `refused` unasked since the last request show
    how much a small bucket is in demand. `leave` gives everything back: shutdown, a rule that is gone.
    """
    if lease.pace and lease.tokens and now_ns < lease.deadline_ns and not leave:
        return _report(lease, limit, holder_id, now_ns, min(need, lease.accrued(now_ns, limit.step_ns)))  # it goes on
    was_stream = bool(lease.pace)
    pace = 0
    if limit.stream_ns and not leave and wants_stream(lease, limit, now_ns, need, refused):
        pace = _PARTS
    if now_ns >= lease.deadline_ns or was_stream:
        lease.drop()
    if lease.granted >= _NEW_LIFE_AT and not lease.tokens:
        begin(lease, now_ns)
    wanted = 0 if leave or is_idle(lease, now_ns, policy) else target(lease, limit, now_ns, policy)
    back = min(need, lease.tokens)
    if not wanted or lease.tokens > 2 * wanted:
        back = max(back, lease.tokens - wanted)
    aged, age_ns = 0, 0
    if lease.half_ns and not was_stream:
        aged = lease.granted - lease.returned - lease.half
        age_ns = min(
            max(0, now_ns - lease.half_ns) * 15 // 16, policy.lease_ns
        )  # our clock may be faster than the store's
    lease.demand_mtps = demand_mtps(lease, now_ns, policy)
    lease.spent_then, lease.half_ns = lease.spent, 0
    lease.asked_ns = now_ns
    ask = _report(lease, limit, holder_id, now_ns, back)
    return ask._replace(aged=aged, age_ns=age_ns, extra=0 if pace else max(0, wanted - lease.tokens), pace=pace)


def _report(lease: Lease, limit: Limit, holder_id: bytes, now_ns: int, back: int) -> Ask:
    """What became of the tokens, with `back` of them given back. Nothing is wanted."""
    lease.tokens -= back
    lease.returned += back
    lease.sequence += 1
    return Ask(
        limit,
        lease_id=lease_id(holder_id, lease.start),
        start=lease.start,
        sequence=lease.sequence,
        acked=lease.acked,
        spent=lease.spent,
        returned=lease.returned,
        held=lease.tokens,
        sent_ns=now_ns,
    )


def take_answer(lease: Lease, ask: Ask, answer: Answer, place: int, now_ns: int, policy: Policy) -> bool:
    """Book the store's answer to `ask`, `place` in its request; False: it was late, nothing changed."""
    if (ask.start, ask.sequence) != (lease.start, lease.sequence) or ask.sequence <= lease.acked:
        return False
    balance = answer.balances[place]
    if answer.is_stale and balance.seen != ask.sequence:
        if balance.seen > ask.sequence:
            begin(lease, now_ns)  # the store knows more of this lease than its record: that was lost
        return False
    lease.acked = ask.sequence
    if lease.pace:  # a stream that goes on
        return True
    streams = balance.pace > 0
    lasts_ns = longest_ns(ask.limit, balance.pace) if streams else policy.lease_ns - policy.margin_ns
    gain = max(balance.granted - lease.granted, -lease.tokens)
    lease.granted += gain
    lease.tokens += gain
    lease.deadline_ns = ask.sent_ns + lasts_ns
    lease.demand_mtps += answer.admitted * 10**12 // policy.period_ns
    if balance.pace:
        streams = streams and begin_stream(lease, ask.limit, balance, now_ns)
        wait_ns = 0 if streams or balance.left else max(balance.extra * 1000, policy.pause_ns // 8)
        lease.next_ask_ns = now_ns + wait_ns
        return True
    missing = ask.limit.chunk - balance.left
    if balance.left == 0:  # the wait is exact for the first token, of the bucket that is emptiest
        lease.next_ask_ns = now_ns + max(answer.wait_ns, 0) + (missing - 1) * ask.limit.step_ns
    elif lease.next_ask_ns and missing > 0:  # it was empty, and still nearly is
        lease.next_ask_ns = now_ns + missing * ask.limit.step_ns
    else:
        lease.next_ask_ns = 0
    return True


def begin_stream(lease: Lease, limit: Limit, balance: Balance, now_ns: int) -> bool:
    """Have tokens come from now on; False if it is too late for it."""
    gap = gap_ns(limit.step_ns, balance.pace)
    left_ns = lease.asked_ns + longest_ns(limit, balance.pace) - now_ns
    tokens = min(-(-limit.stream_ns // gap), left_ns // gap - 1)
    if tokens > 0:
        lease.begin_stream(tokens, balance.pace, balance.extra, limit, now_ns)
    return tokens > 0
