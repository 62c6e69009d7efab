"""The pooled keep-alive HTTP/1.1 client that forwards requests to the application backend, callback-style.

A request costs no task, future or timer of its own: it is written on an idle connection, and its callback is called
from the read event that completes the reply. A request that may have reached the backend is sent again only when its
route says that it may be repeated, once, and only when a reused connection died before any byte of the reply.
"""

import asyncio
import itertools
import ssl
from collections.abc import Callable, Sequence

from cpro._fast.carrier import Exchange
from cpro._fast.http1 import Request, Response
from cpro.errors import ConfigError
from cpro.http.endpoints import Endpoint, Origin, parse_endpoint
from cpro.http.outcome import Failure, Outcome
from cpro.http.pool import Pool, PoolSettings

__all__ = ["Failure", "HttpClient", "Outcome", "Response", "Route"]

TIMER_SLACK_S = 0.0005  # uvloop's timers and clock have a resolution of a millisecond


class Route:
    """Endpoints that take the same requests, in turn. Made by `HttpClient.route`, lives as long as the client."""

    __slots__ = ("may_repeat", "pick", "targets")

    def __init__(self, targets: list[tuple[Endpoint, Pool]], may_repeat: bool) -> None:
        self.targets = targets
        self.may_repeat = may_repeat
        self.pick: Callable[[], tuple[Endpoint, Pool]] = itertools.cycle(targets).__next__

    def pick_other(self, refused_by: tuple[Endpoint, ...]) -> tuple[Endpoint, Pool] | None:
        """The next one that has not refused yet, one that is skipped if no other is left."""
        in_turn = [self.pick() for _ in self.targets]
        return next((target for target in in_turn + self.targets if target[0] not in refused_by), None)

    def refresh(self) -> None:
        """Go round those that are not skipped; all of them when all are."""
        healthy = [target for target in self.targets if not target[1].health.skipped]
        self.pick = itertools.cycle(healthy or self.targets).__next__


class HttpClient:
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
    ) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._settings = PoolSettings(connect_timeout_s, max_reply_bytes, tls, server_hostname, drop)
        self._pools: dict[Origin, Pool] = {}
        self._routes: list[Route] = []
        self._in_flight: dict[Exchange, Route] = {}  # oldest first: they all have the same timeout
        self._timer: asyncio.TimerHandle | None = None  # for the oldest, or one that was
        self._closing = False
        self._drained: asyncio.Future[None] | None = None

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def route(self, urls: Sequence[str], *, may_repeat: bool) -> Route:
        """Compile full URLs, path included; a ConfigError says what is wrong with one."""
        endpoints = [parse_endpoint(url) for url in urls]
        if not endpoints:
            raise ConfigError(["a route needs at least one URL"])
        route = Route([(endpoint, self._pool(endpoint.origin)) for endpoint in endpoints], may_repeat)
        if len(endpoints) > 1:
            for _, pool in route.targets:
                pool.health.is_watched = True
        self._routes.append(route)
        return route

    def send(self, route: Route, request: Request, on_done: Callable[[Outcome], object]) -> None:
        """Forward; `on_done` is called exactly once, never before this returns."""
        if self._closing:
            self._loop.call_soon(on_done, Failure.CLOSED)
            return
        now_s = self._loop.time()
        endpoint, pool = route.pick()
        exchange = Exchange(request, on_done, endpoint, route.may_repeat, now_s + self._timeout_s)
        self._in_flight[exchange] = route
        if self._timer is None:
            self._timer = self._loop.call_at(exchange.deadline_s, self._on_timer)
        pool.start(exchange, now_s)

    async def close(self, drain_s: float) -> None:
        """Refuse new requests, give those in flight `drain_s`, then fail the rest; leaves nothing open."""
        self._closing = True
        for pool in self._pools.values():
            pool.begin_close()
        if self._in_flight and drain_s > 0:
            self._drained = self._drained or self._loop.create_future()
            await asyncio.wait({self._drained}, timeout=drain_s)
        for exchange in list(self._in_flight):
            self._abandon(exchange, Failure.CLOSED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*(pool.finish_close() for pool in self._pools.values()))

    # --- what pools tell it ---

    def on_outcome(self, exchange: Exchange, outcome: Outcome) -> None:
        """Tell the sender. The entry in `_in_flight` is what makes it exactly once."""
        if self._in_flight.pop(exchange, None) is None:
            return
        if self._drained is not None and not self._in_flight and not self._drained.done():
            self._drained.set_result(None)
        try:
            exchange.on_done(outcome)
        except Exception as error:  # the sender's bug must not cost other exchanges their connection
            self._loop.call_exception_handler({"message": "on_done of an HTTP request raised", "exception": error})

    def on_refused(self, exchange: Exchange) -> None:
        """No connection to that endpoint: nothing was sent to it, so another may be asked."""
        exchange.refused_by += (exchange.endpoint,)
        target = self._in_flight[exchange].pick_other(exchange.refused_by)
        if target is None:
            self.on_outcome(exchange, Failure.RESET if exchange.repeated else Failure.REFUSED)
            return
        exchange.endpoint, pool = target
        pool.start(exchange, self._loop.time())

    def on_health_change(self) -> None:
        for route in self._routes:
            route.refresh()

    # --- timeouts ---

    def _on_timer(self) -> None:
        now_s = self._loop.time() + TIMER_SLACK_S
        overdue = []
        self._timer = None
        for exchange in self._in_flight:
            if exchange.deadline_s > now_s:
                self._timer = self._loop.call_at(exchange.deadline_s, self._on_timer)
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
        self.on_outcome(exchange, failure)

    def _pool(self, origin: Origin) -> Pool:
        if origin.scheme == "https" and self._settings.tls is None:
            self._settings = self._settings._replace(tls=ssl.create_default_context())
        if origin not in self._pools:
            self._pools[origin] = Pool(self, self._loop, origin, self._settings)
        return self._pools[origin]
