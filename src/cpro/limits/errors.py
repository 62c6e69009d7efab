"""Too many errors on one connection: buckets that refill, kept by the connection's own worker (GCRA, as `buckets`)."""

from cpro.config.model import ClientError


class ErrorLimit:
    """Compiled from `client.rate_limit.client_error`."""

    def __init__(self, settings: ClientError) -> None:
        is_on = settings.enabled and settings.total.enabled
        buckets = settings.total.buckets if is_on else ()
        self._limits = [
            (bucket.interval // bucket.rate, (bucket.burst or bucket.rate) * bucket.interval // bucket.rate)
            for bucket in buckets
        ]

    def take(self, full_at_ns: list[int], now_ns: int) -> bool:
        """Charge one error; False when some bucket has none left.

        `full_at_ns` is the connection's own: when each of its buckets will be full again; empty at first.
        """
        if len(full_at_ns) != len(self._limits):  # new, or a reload came between
            full_at_ns[:] = [now_ns] * len(self._limits)
        is_good = True
        for place, (step_ns, full_ns) in enumerate(self._limits):
            then_ns = max(full_at_ns[place], now_ns) + step_ns
            if then_ns - now_ns > full_ns:
                is_good = False
            else:
                full_at_ns[place] = then_ns
        return is_good
