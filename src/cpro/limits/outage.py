"""Which parts of a store are away, and when each may be tried again: one mechanism for leases and quotas.

A part is what fails together. One that failed is left alone for a moment, so that nobody needs to wait to find out;
then the calls of one turn of the loop try it, and the others go on without it until it has answered. Keys may move
meanwhile: where another part answers for the key that failed, the outage is over. Times are seconds of any clock,
handed in; neither clock nor I/O here.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from random import random
from typing import Final, NamedTuple

FIRST_PAUSE_S: Final = 0.25
LAST_PAUSE_S: Final = 2.0
"""How long a part is left alone, less up to half of it by chance: doubles with each trial."""


class Part(NamedTuple):
    """What fails together: a shard, or one server of a shard that is a cluster."""

    shard: int
    server: Hashable = None

    @property
    def fields(self) -> dict[str, int | str]:
        """How a line in the log names it."""
        return {"shard": self.shard} if self.server is None else {"shard": self.shard, "server": str(self.server)}


@dataclass(slots=True)
class _Outage:
    key: str
    """One that could not be asked about."""
    pause_s: float
    ask_again_s: float


class Outages:
    """Those of one caller's store. `part_of` tells where a key is kept."""

    def __init__(self, part_of: Callable[[str], Part], chance: Callable[[], float] = random) -> None:
        """`chance` is between 0 and 1: nodes that lost a store together should not come back to it together."""
        self._part_of = part_of
        self._chance = chance
        self._away: dict[Part, _Outage] = {}

    def __bool__(self) -> bool:
        """Whether anything is away."""
        return bool(self._away)

    def is_away(self, key: str) -> bool:
        """Whether the last that was heard of the key's part is that it failed."""
        return bool(self._away) and self._part_of(key) in self._away

    def is_left_alone(self, key: str, now_s: float) -> bool:
        """Whether the key's part is not to be asked now."""
        if not self._away:
            return False
        outage = self._away.get(self._part_of(key))
        return outage is not None and now_s < outage.ask_again_s

    def on_failed(self, part: Part, key: str, now_s: float) -> Part | None:
        """A call about a key failed; the part that is away, if that is news."""
        if part.server is None:  # which one it would be may not have been known when the call was made
            part = self._part_of(key)
        if part in self._away:
            return None
        outage = self._away[part] = _Outage(key, FIRST_PAUSE_S, 0.0)
        self._pause(outage, now_s)
        return part

    def on_sending(self, parts: Iterable[Part], now_s: float) -> None:
        """Calls go out to these parts. Those that are away are being tried: nobody else needs to for a while."""
        if self._away:
            for part in self._away.keys() & set(parts):
                outage = self._away[part]
                outage.pause_s = min(outage.pause_s * 2, LAST_PAUSE_S)
                self._pause(outage, now_s)

    def on_answered(self, part: Part) -> list[Part]:
        """A call was answered; the parts that are back, or replaced, by that."""
        if not self._away:
            return []
        back = [away for away, outage in self._away.items() if part in (away, self._part_of(outage.key))]
        for away in back:
            del self._away[away]
        return back

    def _pause(self, outage: _Outage, now_s: float) -> None:
        outage.ask_again_s = now_s + outage.pause_s * (0.5 + self._chance() / 2)
