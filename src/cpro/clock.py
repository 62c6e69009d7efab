"""The only source of time. One read per socket event, passed down as `now_ns`."""

import time
from functools import partial

boot_ns = partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
"""Nanoseconds of CLOCK_BOOTTIME: never steps, and goes on while the machine sleeps (clock_gettime(2))."""


def unix_seconds() -> int:
    """Wall-clock seconds since 1970, for what leaves the process."""
    return int(time.time())


def unix_ms() -> int:
    """The same in ms."""
    return time.time_ns() // 10**6


class Seconds:
    """The wall clock's seconds at times of `boot_ns`: read when a new one begins, so that asking costs a comparison.

    `if at_ns >= seconds.end_ns: seconds.turn()`, then `seconds.now`. A clock that is set is followed within a second.
    """

    __slots__ = ("end_ns", "now")

    def __init__(self) -> None:
        self.turn()

    def turn(self) -> None:
        self.now, gone_ns = divmod(time.time_ns(), 10**9)
        self.end_ns = boot_ns() + 10**9 - gone_ns
