"""How long rows are kept, in ClickHouse's words."""

import pytest

from cpro.config.ttl import parse_ttl


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("7 DAY", "7 DAY"),
        ("7 day", "7 DAY"),
        ("7days", "7 DAY"),
        ("1 Month", "1 MONTH"),
        ("4 quarters", "4 QUARTER"),
        ("30 SECOND", "30 SECOND"),
        ("50 YEAR", "50 YEAR"),
        ("168h", "168 HOUR"),
        ("1h30m", "90 MINUTE"),
        ("90s", "90 SECOND"),
    ],
)
def test_it_is_kept_as_an_interval(text: str, kept: str):
    assert parse_ttl(text) == kept


@pytest.mark.parametrize("text", ["", "7", "-7 DAY", "7 DAY;", "7 DAY DELETE", "7.5 DAY", "\u0667 DAY", "7 DAYSS"])
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match="must be a number and one of"):
        parse_ttl(text)


@pytest.mark.parametrize("text", ["51 YEAR", "9999999999 SECOND", "601 MONTH", "439201h"])
def test_no_row_outlives_the_dates(text: str):
    with pytest.raises(ValueError, match="must be at most 50 YEAR"):
        parse_ttl(text)
