"""Which parts of a store are away, and when each may be tried again: one mechanism for leases and quotas.

A part is what fails together. One that failed is left alone for a moment, so that nobody needs to wait to find out;
then the calls of one turn of the loop try it, and the others go on without it until it has answered. Times are
seconds of any clock, handed in; neither clock nor I/O here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import random
from typing import Final, NamedTuple

FIRST_PAUSE_S: Final = 0.25
LAST_PAUSE_S: Final = 2.0
"""How long a part is left alone, less up to half of it by chance: doubles with each trial."""


class Part(NamedTuple):
    """What fails together, as far as callers can tell."""

    shard: int


@dataclass(slots=True)
class _Outage:
    pause_s: float
    ask_again_s: float


class Outages:
    """Those of one caller's store. `part_of` tells where a key is kept."""

    def __init__(self, part_of: Callable[[str], Part], chance: Callable[[], float] = random) -> None:
        """`chance` is between 0 and 1: nodes that lost a store together should not come back to it together."""
        self._part_of = part_of
        self._chance = chance
        self._away: dict[Part, _Outage] = {}

    def is_away(self, key: str) -> bool:
        """Whether the last that was heard of the key's part is that it failed."""
        return bool(self._away) and self._part_of(key) in self._away

    def is_left_alone(self, key: str, now_s: float) -> bool:
        """Whether the key's part is not to be asked now."""
        if not self._away:
            return False
        outage = self._away.get(self._part_of(key))
        return outage is not None and now_s < outage.ask_again_s

    def on_failed(self, part: Part, now_s: float) -> bool:
        """A call failed; whether that is news."""
        if part in self._away:
            return False
        outage = self._away[part] = _Outage(FIRST_PAUSE_S, 0.0)
        self._pause(outage, now_s)
        return True

    def on_sending(self, parts: Iterable[Part], now_s: float) -> None:
        """Calls go out to these parts. Those that are away are being tried: nobody else needs to for a while."""
        if self._away:
            for part in self._away.keys() & set(parts):
                outage = self._away[part]
                outage.pause_s = min(outage.pause_s * 2, LAST_PAUSE_S)
                self._pause(outage, now_s)

    def on_answered(self, part: Part) -> bool:
        """A call was answered; whether the part had been away."""
        return bool(self._away) and self._away.pop(part, None) is not None

    def _pause(self, outage: _Outage, now_s: float) -> None:
        outage.ask_again_s = now_s + outage.pause_s * (0.5 + self._chance() / 2)
