"""The promise of a limit, checked over every interval of a recorded history."""


def worst_overshoot(times_s: list[float], burst: float, rate_per_s: float) -> float:
    """How far the admissions at `times_s` exceed `burst + rate·L` in the worst of all intervals; ≤ 0 keeps it.

    Over all i ≤ j: (j − i + 1) − burst − rate·(t_j − t_i). The maximum over i is carried along, so it is one pass:
    with f(k) = k − rate·t_k the term is f(j) − min f(i) + 1 − burst.
    """
    worst, least = -burst, float("inf")
    for number, time_s in enumerate(sorted(times_s)):
        height = number - rate_per_s * time_s
        least = min(least, height)
        worst = max(worst, height - least + 1 - burst)
    return worst
