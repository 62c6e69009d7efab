"""Durations as Go writes them (`800ms`, `1h30m`), counted in nanoseconds."""

import re
from typing import Final, Self

UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek mu: Go takes both
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
MOST_NS: Final = 2**63 - 1  # Go's time.Duration is an int64

_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]+)")
_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]*")
_MOST_CHARACTERS = 64


class Duration(int):
    """A length of time in nanoseconds; `str()` gives text that `parse` reads back."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """What Go's time.ParseDuration accepts, except a minus and a bare 0; ValueError says what is wrong."""
        if not text or len(text) > _MOST_CHARACTERS:
            raise ValueError('must be a duration such as "800ms", "10s" or "24h"')
        if _NUMBER.fullmatch(text):
            raise ValueError(f'must be a duration with a unit, such as "{text.lstrip("+-")}s", not a bare number')
        if text[0] == "-":
            raise ValueError("must not be negative")
        total = 0
        place = 1 if text[0] == "+" else 0
        while place < len(text):
            part = _PART.match(text, place)
            if part is None or not (part[1] or part[2]):
                raise ValueError(f'must be a duration such as "800ms", "10s" or "24h", not "{text}"')
            total += _part_ns(part[1], part[2] or "", part[3])
            place = part.end()
        if total > MOST_NS:
            raise ValueError("is too long a duration")
        return cls(total)

    @property
    def seconds(self) -> float:
        return int(self) / 1e9

    def __str__(self) -> str:
        if self < UNITS_NS["s"]:
            unit = next((unit for unit in ("ms", "us", "ns") if self >= UNITS_NS[unit]), "s")
            return _decimal(int(self), unit)
        hours, rest = divmod(int(self), UNITS_NS["h"])
        minutes, rest = divmod(rest, UNITS_NS["m"])
        parts = (f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", _decimal(rest, "s") if rest else "")
        return "".join(parts)

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"


def _part_ns(whole: str, fraction: str, unit: str) -> int:
    unit_ns = UNITS_NS.get(unit)
    if unit_ns is None:
        raise ValueError(f'has the unknown unit "{unit}": use ns, us, ms, s, m or h')
    return int(whole or 0) * unit_ns + int(fraction or 0) * unit_ns // int("1" + "0" * len(fraction))


def _decimal(amount_ns: int, unit: str) -> str:
    whole, rest = divmod(amount_ns, UNITS_NS[unit])
    digits = len(str(UNITS_NS[unit])) - 1
    fraction = f"{rest:0{digits}d}".rstrip("0") if rest else ""
    return f"{whole}.{fraction}{unit}" if fraction else f"{whole}{unit}"
