"""The judge of the exactness tests is itself on trial."""

from tests.support.envelope import worst_overshoot


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
