"""The two times of a user."""

from typing import Final

Times = tuple[int, int]
"""Last active and last online, Unix seconds; 0 where it is not known."""

UNKNOWN: Final[Times] = (0, 0)
ONLINE_STEP_S: Final = 60


def online_step_s(expire_s: int) -> int:
    """How often `online` is stored at most: once a minute, or twice in the time after which a user is forgotten."""
    return max(1, min(ONLINE_STEP_S, expire_s // 2))


def later(one: Times, other: Times) -> Times:
    """Time never moves backwards, for neither of the two."""
    return max(one[0], other[0]), max(one[1], other[1])
