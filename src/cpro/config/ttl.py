"""How long ClickHouse keeps rows (`7 DAY`), in the words of its INTERVAL."""

import re
from typing import Final

from .duration import UNITS_NS, Duration

UNITS_S: Final = {
    "SECOND": 1,
    "MINUTE": 60,
    "HOUR": 3600,
    "DAY": 86400,
    "WEEK": 7 * 86400,
    "MONTH": 31 * 86400,
    "QUARTER": 92 * 86400,
    "YEAR": 366 * 86400,
}
"""By unit, its seconds at most."""
MOST_YEARS: Final = 50
"""A `DateTime` ends in 2106, and ClickHouse lets what is added to it wrap around: a row would go at once."""

_TTL: Final = re.compile(r"([0-9]{1,10}) *([A-Za-z]+)")


def parse_ttl(text: str) -> str:
    """`7 DAY`, as ClickHouse writes it, from that, from `7 days`, or from a duration such as `168h`."""
    found = _TTL.fullmatch(text)
    unit = found[2].upper().removesuffix("S") if found else ""
    if found is not None and unit in UNITS_S:
        return _checked(int(found[1]), unit)
    try:
        duration = Duration.parse(text)
    except ValueError:
        raise ValueError(f'must be a number and one of {", ".join(UNITS_S)}, such as "7 DAY"') from None
    if duration % UNITS_NS["s"]:
        raise ValueError("must be whole seconds")
    seconds = duration // UNITS_NS["s"]
    unit = next(unit for unit in ("HOUR", "MINUTE", "SECOND") if not seconds % UNITS_S[unit])
    return _checked(seconds // UNITS_S[unit], unit)


def _checked(number: int, unit: str) -> str:
    if number == 0:
        raise ValueError("must not be 0")
    if number * UNITS_S[unit] > MOST_YEARS * UNITS_S["YEAR"]:
        raise ValueError(f"must be at most {MOST_YEARS} YEAR")
    return f"{number} {unit}"
