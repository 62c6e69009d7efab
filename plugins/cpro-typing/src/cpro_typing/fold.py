"""Many calls, few publications."""


class Fold:
    """Lets one event per key and `window_ns` through. Forgets what is older, and the oldest beyond `most` keys."""

    def __init__(self, window_ns: int, most: int = 100_000) -> None:
        self._window_ns = window_ns
        self._most = most
        self._let_at_ns: dict[tuple[str, str], int] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._let_at_ns)

    def lets(self, user: str, channel: str, now_ns: int) -> bool:
        """Whether this one is the first of its window."""
        self._forget(now_ns)
        if (user, channel) in self._let_at_ns:
            return False
        self._let_at_ns[user, channel] = now_ns
        return True

    def _forget(self, now_ns: int) -> None:
        while self._let_at_ns:
            oldest = next(iter(self._let_at_ns))
            if now_ns - self._let_at_ns[oldest] < self._window_ns and len(self._let_at_ns) < self._most:
                return
            del self._let_at_ns[oldest]
