"""Sizes of memory and files (`512MiB`, `8GiB`), counted in bytes."""

import re
from typing import Final, Self

UNITS_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
MOST_BYTES: Final = 2**63 - 1

_SIZE: Final = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))? ?([A-Za-z]*)")


class Size(int):
    """A number of bytes; `str()` gives text that `parse` reads back."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`8GiB`, `1.5 GiB`, or plain bytes; ValueError says what is wrong."""
        found = _SIZE.fullmatch(text)
        if found is None:
            raise ValueError('must be a size such as "512MiB" or "8GiB", or a number of bytes')
        whole, fraction, unit = found[1], found[2] or "", found[3] or "B"
        unit_bytes = UNITS_BYTES.get(unit)
        if unit_bytes is None:
            raise ValueError(f'has the unknown unit "{unit}": use {", ".join(UNITS_BYTES)}')
        total = int(whole) * unit_bytes + int(fraction or 0) * unit_bytes // int("1" + "0" * len(fraction))
        if total > MOST_BYTES:
            raise ValueError("is too large a size")
        return cls(total)

    def __str__(self) -> str:
        """In the largest unit that leaves no fraction."""
        units = ((unit, size) for unit, size in reversed(UNITS_BYTES.items()) if self and not int(self) % size)
        unit, unit_bytes = next(units, ("B", 1))
        return f"{int(self) // unit_bytes}{unit if unit != 'B' else ''}"

    def __repr__(self) -> str:
        return f"Size({str(self)!r})"
