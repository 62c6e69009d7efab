"""A store's parts that are away: who may ask when, on a clock that is the test's."""

import pytest

from cpro.limits.outage import FIRST_PAUSE_S, LAST_PAUSE_S, Outages, Part

A, B = Part(0), Part(1)


def outages(chance: float = 1.0) -> Outages:
    return Outages(lambda key: A if key.startswith("a") else B, lambda: chance)


def test_a_part_that_failed_is_left_alone_and_the_others_are_not():
    away = outages()
    assert away.on_failed(A, "a", 100.0) == A
    assert (away.is_away("a"), away.is_away("b")) == (True, False)
    assert away.is_left_alone("a", 100.0 + FIRST_PAUSE_S - 0.01)
    assert not away.is_left_alone("b", 100.0)
    assert not away.is_left_alone("a", 100.0 + FIRST_PAUSE_S)
    assert away.is_away("a"), "until it has answered"


def test_those_that_fail_together_are_one_failure():
    away = outages()
    assert [away.on_failed(A, "a", 100.0 + n / 100) for n in range(3)] == [A, None, None]
    assert not away.is_left_alone("a", 100.0 + FIRST_PAUSE_S)


def test_one_trial_at_a_time_and_twice_as_long_between_them():
    away = outages()
    away.on_failed(A, "a", 0.0)
    now_s, pauses = FIRST_PAUSE_S, []
    for _ in range(6):
        assert not away.is_left_alone("a", now_s)
        away.on_sending([A, A, B], now_s)
        assert away.is_left_alone("a", now_s), "while it is tried"
        away.on_failed(A, "a", now_s)
        began_s = now_s
        while away.is_left_alone("a", now_s):
            now_s += 0.25
        pauses.append(now_s - began_s)
    assert pauses == [0.5, 1.0, LAST_PAUSE_S, LAST_PAUSE_S, LAST_PAUSE_S, LAST_PAUSE_S]


def test_an_answer_ends_it_and_the_next_outage_begins_with_a_short_pause():
    away = outages()
    assert away.on_answered(A) == []
    away.on_failed(A, "a", 0.0)
    away.on_sending([A], 1.0)
    assert away.on_answered(B) == []
    assert away.on_answered(A) == [A]
    assert away.on_answered(A) == []
    assert not away.is_away("a")
    assert not away.is_left_alone("a", 1.0)
    away.on_failed(A, "a", 2.0)
    assert not away.is_left_alone("a", 2.0 + FIRST_PAUSE_S)


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (1.0, 1.0)])
def test_chance_shortens_a_pause_by_up_to_half(chance, share):
    away = outages(chance)
    away.on_failed(A, "a", 0.0)
    assert away.is_left_alone("a", FIRST_PAUSE_S * share - 0.001)
    assert not away.is_left_alone("a", FIRST_PAUSE_S * share)


def test_sending_to_a_part_that_is_there_changes_nothing():
    away = outages()
    away.on_sending([A, B], 0.0)
    assert not away.is_left_alone("a", 0.0)


def test_a_part_whose_key_another_part_answers_for_has_been_replaced():
    places = {"moved": A, "stays": B}
    away = Outages(places.__getitem__, lambda: 1.0)
    away.on_failed(A, "moved", 0.0)
    assert away.on_answered(B) == []
    places["moved"] = B
    assert not away.is_left_alone("moved", 0.0), "its new place is not away"
    assert away.on_answered(B) == [A]
    assert not away.is_away("moved")


def test_a_part_names_its_server_where_it_has_one():
    assert Part(1).fields == {"shard": 1}
    assert Part(1, "10.0.0.1:6379").fields == {"shard": 1, "server": "10.0.0.1:6379"}


def test_a_failure_is_that_of_the_server_which_turned_out_to_have_the_key():
    server = Part(0, "10.0.0.1:6379")
    places = {"early": Part(0)}
    away = Outages(places.__getitem__, lambda: 1.0)
    sent_to = places["early"]
    places["early"] = server
    assert away.on_failed(sent_to, "early", 0.0) == server
    assert away.on_failed(server, "early", 0.0) is None
