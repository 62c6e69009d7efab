"""The promise of a limit, checked over every interval of a recorded history."""

from bisect import bisect_left, insort


def worst_overshoot(admitted: list[tuple[float, float]], burst: float, rate_per_s: float) -> float:
    """How far a history exceeds `burst + rate·L` in the worst of all intervals; the promise is kept at ≤ 0.

    `admitted` holds the (sent, received) times in s of every admission. It was decided some time between the two, so an
    interval certainly contains those that were sent and received within it; only they are counted.
    """
    worst = -burst
    received: list[float] = []
    for sent, done in sorted(admitted, reverse=True):  # intervals that begin at `sent`, the latest first
        insort(received, done)
        first = bisect_left(received, done)
        for number in range(first, len(received)):
            worst = max(worst, number + 1 - burst - rate_per_s * (received[number] - sent))
    return worst
