"""The bucket table as a dictionary: what `cpro._fast.buckets` must answer, in arithmetic that can't overflow."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cpro._fast.buckets import NEVER_NS, Layer

STALE_NS = 10_000_000_000


@dataclass
class OracleTable:
    """GCRA over (kind, name, identity) → theoretical arrival time."""

    arrivals: dict[tuple[int, str, int], int] = field(default_factory=dict)

    def charge(
        self,
        layers: Sequence[Layer],
        dry_run: tuple[bool, bool, bool],
        client: str,
        user: str,
        user_kind: int,
        now_ns: int,
        tokens: int = 1,
    ) -> int:
        asked = self._asked(layers, client, user, user_kind)
        digits = [0, 0, 0]
        for block in range(3):
            own = [(key, layer) for key, layer in asked if layer.block == block]
            if not own:
                continue
            answers = []
            for key, layer in own:
                answers.append(self._would_be(key, layer, now_ns, tokens) is not None)
                if not answers[-1]:
                    self._repair(key, layer, now_ns)
                    if not dry_run[block]:
                        break
            if all(answers):
                digits[block] = 1
            elif dry_run[block]:
                digits[block] = 3
            else:
                digits[block] = 2
                break
        if 2 not in digits:
            for key, layer in asked:
                if digits[layer.block] == 1:
                    arrival = self._would_be(key, layer, now_ns, tokens)
                    assert arrival is not None
                    self.arrivals[key] = arrival
        return sum(digit << 2 * block for block, digit in enumerate(digits))

    def wait_ns(
        self,
        layers: Sequence[Layer],
        dry_run: tuple[bool, bool, bool],
        client: str,
        user: str,
        user_kind: int,
        now_ns: int,
        tokens: int = 1,
    ) -> int:
        waits = [0]
        for key, layer in self._asked(layers, client, user, user_kind):
            if dry_run[layer.block]:
                continue
            if tokens * layer.step_ns > layer.full_ns:
                return NEVER_NS
            waits.append(self._base(key, layer, now_ns) - now_ns + tokens * layer.step_ns - layer.full_ns)
        return max(waits)

    def tokens_left(self, layers: Sequence[Layer], client: str, user: str, user_kind: int, now_ns: int) -> int:
        left = [
            max((layer.full_ns - self._base(key, layer, now_ns) + now_ns) // layer.step_ns, 0)
            for key, layer in self._asked(layers, client, user, user_kind)
        ]
        return min(left, default=-1)

    def _asked(
        self, layers: Sequence[Layer], client: str, user: str, user_kind: int
    ) -> list[tuple[tuple[int, str, int], Layer]]:
        keys = {0: (0, client), 1: (user_kind, user)}
        return [
            ((*keys[layer.keyed_by], layer.identity), layer)
            for layer in layers
            if layer.keyed_by == 0 or user or user_kind != 1
        ]

    def _base(self, key: tuple[int, str, int], layer: Layer, now_ns: int) -> int:
        arrival = self.arrivals.get(key)
        own_ns = max(now_ns if arrival is None else arrival, now_ns)
        if own_ns - now_ns > layer.full_ns + STALE_NS:
            own_ns = now_ns + layer.full_ns
        if layer.previous_identity and (arrival is None or layer.returns):
            before = self.arrivals.get((*key[:2], layer.previous_identity), now_ns)
            used_ns = -(-max(before - now_ns, 0) * layer.full_ns // layer.previous_full_ns)
            return max(own_ns, now_ns + min(used_ns, layer.full_ns))
        return own_ns

    def _repair(self, key: tuple[int, str, int], layer: Layer, now_ns: int) -> None:
        if self.arrivals.get(key, 0) - now_ns > layer.full_ns + STALE_NS:
            self.arrivals[key] = now_ns + layer.full_ns

    def _would_be(self, key: tuple[int, str, int], layer: Layer, now_ns: int, tokens: int) -> int | None:
        arrival = self._base(key, layer, now_ns) + tokens * layer.step_ns
        return arrival if arrival - now_ns <= layer.full_ns else None
