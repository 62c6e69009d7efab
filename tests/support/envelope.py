"""The promise of a limit, checked over every interval of a recorded history: never too much, and not too little.

Times are those of whoever asked, so both hold however long the machine stood still in between. A history holds the
(sent, received) times in s of what was answered alike; it was decided some time between the two.
"""

from bisect import bisect_left, insort

Times = tuple[float, float]


def worst_overshoot(admitted: list[Times], burst: float, rate_per_s: float) -> float:
    """How far a history exceeds `burst + rate·L` in the worst of all intervals; the promise is kept at ≤ 0.

    An interval certainly contains those of `admitted` that were sent and received within it; only they are counted.
    """
    worst = -burst
    received: list[float] = []
    for sent, done in sorted(admitted, reverse=True):  # intervals that begin at `sent`, the latest first
        insort(received, done)
        first = bisect_left(received, done)
        for number in range(first, len(received)):
            worst = max(worst, number + 1 - burst - rate_per_s * (received[number] - sent))
    return worst


def least_admitted(refused: list[Times], burst: float, rate_per_s: float) -> float:
    """How many a token bucket that was full at first has certainly admitted by the time of its last refusal.

    A refusal says that the bucket was empty, to less than a token. So all it held at first was spent before the first,
    and all that refilled between two was spent in between, unless they are so far apart that it may have been full.
    """
    if not refused:
        return 0.0
    least = burst - 1
    in_order = sorted(refused, key=lambda times: times[1])
    first = last = in_order[0]
    for sent, received in in_order[1:]:
        if sent < last[1]:
            continue  # nobody knows which of the two was decided first
        if rate_per_s * (received - last[0]) >= burst:
            least += _refill(first, last, rate_per_s) + min(_refill(last, (sent, received), rate_per_s), burst - 1)
            first = sent, received
        last = sent, received
    return least + _refill(first, last, rate_per_s)


def _refill(one: Times, other: Times, rate_per_s: float) -> float:
    """What has refilled between two refusals for sure and been spent, but for a token that was not whole."""
    return max(0.0, rate_per_s * (other[0] - one[1]) - 1)
