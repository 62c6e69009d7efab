"""Single plain values -> text, numbers, durations, sizes; ValueError says in plain words what is wrong."""

from typing import TypeVar

from .duration import Duration
from .size import Size

Number = TypeVar("Number", bound=int)


def read_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def read_int(value: object) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


def read_text(value: object) -> str:
    if isinstance(value, bool | int | float):
        raise ValueError("must be text: put it in quotes")
    if not isinstance(value, str):
        raise ValueError("must be text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode text") from None
    return value


def read_duration(value: object) -> Duration:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError('must be a duration with a unit, such as "800ms" or "10s", not a bare number')
    if not isinstance(value, str):
        raise ValueError('must be a duration such as "800ms", "10s" or "24h"')
    return Duration.parse(value)


def read_size(value: object) -> Size:
    if isinstance(value, str):
        return Size.parse(value)
    try:
        return Size(read_int(value))
    except ValueError:
        raise ValueError('must be a size such as "512MiB" or "8GiB", or a number of bytes') from None


def read_choice(value: object, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}")
    return value


def bounded(value: Number, least: int | None, most: int | None) -> Number:
    if least is not None and value < least:
        raise ValueError(f"must be at least {type(value)(least)}")
    if most is not None and value > most:
        raise ValueError(f"must be at most {type(value)(most)}")
    return value
