"""The pooled keep-alive HTTP/1.1 client that forwards requests to the application backend, callback-style.

A request costs no task, future or timer of its own: it is written on an idle connection, and its callback is called
from the read event that completes the reply. A request that may have reached the backend is sent again only when its
route says that it may be repeated, once, and only when a reused connection died before any byte of the reply.
"""

import asyncio
import itertools
import ssl
from collections.abc import Callable, Iterator, Sequence

from cpro._fast.carrier import MAX_IDLE_S
from cpro._fast.exchange import Exchange, Exchanges
from cpro._fast.forward import Way
from cpro._fast.http1 import Response
from cpro.errors import ConfigError
from cpro.http.endpoints import Endpoint, Origin, parse_endpoint
from cpro.http.outcome import Failure, Outcome
from cpro.http.pool import Pool, PoolOwner, PoolSettings

__all__ = ["Failure", "HttpClient", "Outcome", "Response", "Route"]

TIMER_SLACK_S = 0.0005  # uvloop's timers and clock have a resolution of a millisecond


class Route(Way):
    """Endpoints that take the same requests, in turn. Made by `HttpClient.route`, lives as long as the client."""

    def __init__(self, exchanges: Exchanges, targets: list[tuple[Endpoint, Pool]], may_repeat: bool) -> None:
        super().__init__(exchanges, may_repeat)
        self.targets = targets
        self.turn: Iterator[tuple[Endpoint, Pool]] = itertools.cycle(targets)

    def at(self, target: bytes, headers: bytes, method: bytes = b"POST") -> "Route":
        """The next endpoint, asked for another target with more headers (lines, each with CRLF); for one request."""
        endpoint, pool = next(self.turn)
        return Route(self.exchanges, [(endpoint.at(target, headers, method), pool)], self.may_repeat)

    def pick_other(self, refused_by: tuple[Endpoint, ...]) -> tuple[Endpoint, Pool] | None:
        """The next one that has not refused yet, one that is skipped if no other is left."""
        in_turn = [next(self.turn) for _ in self.targets]
        return next((target for target in in_turn + self.targets if target[0] not in refused_by), None)

    def refresh(self) -> None:
        """Go round those that are not skipped; all of them when all are."""
        healthy = [target for target in self.targets if not target[1].health.skipped]
        self.turn = itertools.cycle(healthy or self.targets)


class HttpClient(PoolOwner):
    """Owns the pools of its origins and the exchanges in flight, until `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        max_reply_bytes: int,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        drop: tuple[bytes, ...] = (),
        max_idle_s: float = MAX_IDLE_S,
    ) -> None:
        """`max_idle_s`: longest that a connection waits for its next request, where the peer does not say."""
        super().__init__(loop.time, timeout_s)
        self._loop = loop
        self._settings = PoolSettings(connect_timeout_s, max_reply_bytes, tls, server_hostname, drop, max_idle_s)
        self._pools: dict[Origin, Pool] = {}
        self._routes: list[Route] = []
        self._timer: asyncio.TimerHandle | None = None  # for the oldest exchange, or one that was
        self._drained: asyncio.Future[None] | None = None

    def route(self, urls: Sequence[str], *, may_repeat: bool) -> Route:
        """Compile full URLs, path included; a ConfigError says what is wrong with one."""
        endpoints = [parse_endpoint(url) for url in urls]
        if not endpoints:
            raise ConfigError(["a route needs at least one URL"])
        route = Route(self, [(endpoint, self._pool(endpoint.origin)) for endpoint in endpoints], may_repeat)
        if len(endpoints) > 1:
            for _, pool in route.targets:
                pool.health.is_watched = True
        self._routes.append(route)
        return route

    async def close(self, drain_s: float) -> None:
        """Refuse new requests, give those in flight `drain_s`, then fail the rest; leaves nothing open."""
        self.closing = True
        for pool in self._pools.values():
            pool.begin_close()
        if self.owed and drain_s > 0:
            self._drained = self._drained or self._loop.create_future()
            await asyncio.wait({self._drained}, timeout=drain_s)
        for exchange in list(self.owed):
            self._abandon(exchange, Failure.CLOSED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*(pool.finish_close() for pool in self._pools.values()))

    # --- what exchanges and their way tell it ---

    def watch(self, deadline_s: float) -> None:
        self.watched = True
        self._timer = self._loop.call_at(deadline_s, self._on_timer)

    def refuse(self, on_done: Callable[[Outcome], object]) -> None:
        """Sent while closing."""
        self._loop.call_soon(on_done, Failure.CLOSED)

    def on_last(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def report(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "on_done of an HTTP request raised", "exception": error})

    # --- what pools tell it ---

    def on_refused(self, exchange: Exchange) -> None:
        """No connection to that endpoint: nothing was sent to it, so another may be asked."""
        exchange.refused_by += (exchange.endpoint,)
        target = exchange.route.pick_other(exchange.refused_by)
        if target is None:
            self.tell(exchange, Failure.RESET if exchange.repeated else Failure.REFUSED)
            return
        exchange.endpoint, pool = target
        pool.start(exchange)

    def on_health_change(self) -> None:
        for route in self._routes:
            route.refresh()

    # --- timeouts ---

    def _on_timer(self) -> None:
        now_s = self._loop.time() + TIMER_SLACK_S
        overdue = []
        self._timer = None
        self.watched = False
        for exchange in self.owed:
            if exchange.deadline_s > now_s:
                self.watch(exchange.deadline_s)
                break
            overdue.append(exchange)
        for exchange in overdue:
            self._time_out(exchange)

    def _time_out(self, exchange: Exchange) -> None:
        pool = self._pools[exchange.endpoint.origin]
        was_sent = exchange.holder is not pool
        self._abandon(exchange, Failure.TIMED_OUT)
        if was_sent:
            pool.health.on_failure("timed out")

    def _abandon(self, exchange: Exchange, failure: Failure) -> None:
        if exchange.holder is not None:
            exchange.holder.withdraw(exchange)
        self.tell(exchange, failure)

    def _pool(self, origin: Origin) -> Pool:
        if origin.scheme == "https" and self._settings.tls is None:
            self._settings = self._settings._replace(tls=ssl.create_default_context())
        if origin not in self._pools:
            self._pools[origin] = Pool(self, self._loop, origin, self._settings)
        return self._pools[origin]
