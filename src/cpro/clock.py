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
