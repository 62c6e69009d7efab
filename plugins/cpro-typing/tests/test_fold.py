"""One of many calls is let through: a unit by itself."""

from cpro_typing.fold import Fold


def test_one_a_window_is_let_through_for_each_user_and_channel():
    fold = Fold(100)
    assert [fold.lets("1", "a", now) for now in (0, 50, 99, 100, 150, 260)] == [True, False, False, True, False, True]
    assert fold.lets("2", "a", 260)
    assert fold.lets("1", "b", 260)


def test_what_is_over_is_forgotten_and_memory_is_bounded():
    fold = Fold(100, most=10)
    for number in range(1000):
        assert fold.lets(str(number), "a", 0)
        assert len(fold) <= 10
    fold.lets("1", "a", 100)
    assert len(fold) == 1
