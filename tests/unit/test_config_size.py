"""Sizes read, written and read again."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro.config.load import load
from cpro.config.size import MOST_BYTES, Size


@pytest.mark.parametrize(
    ("text", "expected_bytes"),
    [
        ("0", 0),
        ("1", 1),
        ("7B", 7),
        ("64KiB", 65_536),
        ("1.5 MiB", 1_572_864),
        ("8GiB", 8_589_934_592),
        ("2TiB", 2_199_023_255_552),
        (str(MOST_BYTES), MOST_BYTES),
    ],
)
def test_sizes_are_read(text: str, expected_bytes: int):
    assert Size.parse(text) == expected_bytes


@pytest.mark.parametrize("text", ["", " ", "GiB", "1e3", "-1", "1..2GiB", "8 GiB ", "8gib", "8G", "1_0", "\u0663B"])
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match=r"must be a size|unknown unit"):
        Size.parse(text)


@pytest.mark.parametrize("text", [str(MOST_BYTES + 1), "8388608TiB", "9999999999999999999TiB"])
def test_a_size_fits_a_machine_word(text: str):
    with pytest.raises(ValueError, match="too large"):
        Size.parse(text)


@given(st.integers(0, MOST_BYTES))
def test_what_is_written_reads_back(number: int):
    assert Size.parse(str(Size(number))) == number


@given(st.text())
def test_no_text_breaks_the_reader(text: str):
    with contextlib.suppress(ValueError):
        Size.parse(text)


@pytest.mark.parametrize("text", ["64MiB", "67108864"])
def test_a_variable_holds_a_size(text: str):
    settings = load(None, {"CPRO_CLICKHOUSE_ANALYTICS_MAX_JOURNAL_SIZE": text}).settings
    assert settings.clickhouse_analytics.max_journal_size == 64 << 20
