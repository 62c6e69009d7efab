"""The judge of the exactness tests is itself on trial."""

from fractions import Fraction
from random import Random

import pytest

from tests.support.envelope import least_admitted, worst_overshoot


def instants(*times):
    return [(time, time) for time in times]


def test_a_burst_and_what_refills_is_within_the_promise():
    assert worst_overshoot(instants(0, 0, 0, 1, 2, 3), burst=3, rate_per_s=1) <= 0


def test_one_more_than_the_burst_is_found():
    assert worst_overshoot(instants(0, 0, 0, 0), burst=3, rate_per_s=1) == 1


def test_an_excess_in_the_middle_of_a_quiet_history_is_found():
    assert worst_overshoot(instants(0, 100, 100, 100.5, 100.5, 300), burst=3, rate_per_s=1) == 0.5


def test_admissions_that_may_have_been_decided_apart_are_not_held_against_anybody():
    assert worst_overshoot([(0, 10), (0, 10), (0, 0), (0, 0)], burst=2, rate_per_s=1) <= 0


def bucket_asked(times, burst, rate_per_s, jitter_s, random):
    """What a token bucket admits and refuses when asked at these times, as somebody sees it who is up to so late."""
    available, at, history = Fraction(burst), Fraction(times[0]), {True: [], False: []}
    for time in map(Fraction, times):
        available, at = min(Fraction(burst), available + (time - at) * rate_per_s), time
        available -= (admits := available >= 1)
        history[admits].append((float(time) - random.random() * jitter_s, float(time) + random.random() * jitter_s))
    return history[True], history[False]


def moments(random, gaps_s, count):
    time = 1000.0
    for _ in range(count):
        time += random.choice(gaps_s) * random.random()
        yield time


@pytest.mark.parametrize("gaps_s", [(0.002,), (0.002, 0.002, 0.4), (0.002, 0.01, 3), (0.5, 5)])
@pytest.mark.parametrize("jitter_s", [0, 0.02])
@pytest.mark.parametrize(("burst", "rate"), [(20, 20), (3, 50), (1, 10), (100, 20)])
def test_a_token_bucket_never_admits_less_than_it_must_have(burst, rate, jitter_s, gaps_s):
    for seed in range(6):
        random = Random(seed)
        admitted, refused = bucket_asked(list(moments(random, gaps_s, 400)), burst, rate, jitter_s, random)
        assert least_admitted(refused, burst, rate) <= len(admitted)


def test_under_demand_that_never_ends_it_must_have_admitted_nearly_all_there_was():
    random = Random(1)
    admitted, refused = bucket_asked(list(moments(random, (0.002,), 5000)), 20, 20, 0.01, random)
    assert least_admitted(refused, 20, 20) >= len(admitted) - 4


def test_one_admission_too_few_is_found():
    assert least_admitted(instants(1, 2, 3.5), burst=10, rate_per_s=4) == 9 + 9


def test_while_nobody_asked_a_bucket_may_have_been_full():
    assert least_admitted(instants(1, 100), burst=10, rate_per_s=4) == 9 + 9
