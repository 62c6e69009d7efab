"""Durations read as Go reads them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro.config.duration import MOST_NS, Duration


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("1μs", 1_000),
        ("300ms", 300_000_000),
        ("10s", 10_000_000_000),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1m1h", 3_660_000_000_000),
        ("+5s", 5_000_000_000),
        ("0.0000000001s", 0),
        ("9223372036854775807ns", MOST_NS),
    ],
)
def test_go_durations_are_read(text: str, expected_ns: int):
    assert Duration.parse(text) == expected_ns


@pytest.mark.parametrize(
    "text", ["", "s", ".", ".s", "1", "0", "1.5", "1d", "1h 30m", "1hs", "-1s", "9223372036854775808ns", "\u0661s"]
)
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match=r"^(must|has|is)"):
        Duration.parse(text)


def test_a_bare_number_is_called_one():
    with pytest.raises(ValueError, match=r'with a unit, such as "5s", not a bare number'):
        Duration.parse("5")


@pytest.mark.parametrize("text", ["0s", "1ns", "1.5us", "800ms", "1.5s", "30s", "1h30m", "24h", "1h0.5s"])
def test_text_is_short_and_stable(text: str):
    assert str(Duration.parse(text)) == text


@given(st.integers(min_value=0, max_value=MOST_NS))
def test_text_reads_back_as_the_same_duration(amount_ns: int):
    assert Duration.parse(str(Duration(amount_ns))) == amount_ns


@given(st.text(max_size=12))
def test_no_text_breaks_the_parser(text: str):
    with contextlib.suppress(ValueError):
        assert 0 <= Duration.parse(text) <= MOST_NS


def test_seconds_are_a_float():
    assert Duration.parse("800ms").seconds == 0.8
