"""The connections to one origin: the youngest idle one is used first, more are made on demand up to a cap.

An exchange that finds none waits its turn here; each dial under way stands for one waiting exchange, though whichever
connection is free first, new or old, serves the first in line. When a dial fails and more exchanges wait than dials
are under way, the first in line is told so. An exchange that is sent a second time waits in a line of its own, which
only new connections serve.
"""

import asyncio
import math
import ssl
from collections import OrderedDict
from contextlib import suppress
from typing import Literal, NamedTuple

from cpro._fast.carrier import Carrier, Depot
from cpro._fast.exchange import Exchange, Exchanges
from cpro.http.endpoints import Origin
from cpro.http.health import Health
from cpro.http.outcome import Failure

MAX_CONNECTIONS = 512
CLOSE_WAIT_S = 1.0  # longest that closed transports are waited for


class PoolSettings(NamedTuple):
    """What all pools of a client have in common."""

    connect_timeout_s: float
    max_reply_bytes: int
    tls: ssl.SSLContext | None
    server_hostname: str | None
    drop: tuple[bytes, ...]
    max_idle_s: float


class PoolOwner(Exchanges):
    """What a pool tells its client."""

    def on_refused(self, exchange: Exchange) -> None:
        raise NotImplementedError

    def on_health_change(self) -> None:
        raise NotImplementedError


class Pool(Depot):
    """Owns its connections and dials; lives as long as its client."""

    health: Health
    waiting: OrderedDict[Exchange, None]

    def __init__(
        self, owner: PoolOwner, loop: asyncio.AbstractEventLoop, origin: Origin, settings: PoolSettings
    ) -> None:
        super().__init__(owner, OrderedDict())
        self._owner = owner
        self._loop = loop
        self._origin = origin
        self._settings = settings
        self._connections: set[Carrier] = set()  # every one that has a transport
        self._dials: set[asyncio.Task[None]] = set()
        self._waiting_for_fresh: OrderedDict[Exchange, None] = OrderedDict()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._probes: list[asyncio.Task[None]] = []  # cancelled by `begin_close`, still to be waited for
        self._on_empty: asyncio.Future[None] | None = None
        self.health = Health(loop, origin, self._probe, owner.on_health_change)

    # --- what the client asks of it ---

    def start(self, exchange: Exchange) -> None:
        """Send an exchange again, elsewhere or on a new connection."""
        if exchange.repeated:
            self._wait(exchange, self._waiting_for_fresh)
        elif not self.carry(exchange, self._loop.time()):
            self.wait(exchange)

    def wait(self, exchange: Exchange) -> None:
        """No connection is idle: let it wait for one."""
        self._wait(exchange, self.waiting)

    def withdraw(self, exchange: Exchange) -> None:
        """Take a waiting exchange out of its line."""
        exchange.holder = None
        self.waiting.pop(exchange, None)
        self._waiting_for_fresh.pop(exchange, None)

    def begin_close(self) -> None:
        """No more idle connections and probes; exchanges under way go on."""
        self.closing = True
        self._probes = self.health.close()
        for connection in self.idle:
            connection.drop()
        self.idle.clear()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()

    async def finish_close(self) -> None:
        """Cancel dials, drop connections, wait until the loop has let go of all."""
        tasks = [*self._dials, *self._probes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._dials.clear()  # of those that were cancelled before their first step
        for connection in self._connections:
            connection.drop()
        if self._connections:
            self._on_empty = self._loop.create_future()
            await asyncio.wait({self._on_empty}, timeout=CLOSE_WAIT_S)

    # --- what connections tell it ---

    def on_free(self, connection: Carrier) -> None:
        """Of a new connection, and of one that has carried an exchange when it isn't simply idle again."""
        if self.waiting:
            connection.carry(self.waiting.popitem(last=False)[0])
        elif self.closing:
            connection.drop()
        else:
            connection.is_fresh = False
            self.idle.append(connection)
            if connection.reuse_until_s < self.sweep_at_s:
                self._sweep_at(connection.reuse_until_s)

    def on_failure(self, exchange: Exchange, failure: Literal["BROKEN", "RESET"], was_stale: bool) -> None:
        """`was_stale`: a reused connection that died before any byte of the reply."""
        if was_stale and exchange.may_repeat and not exchange.repeated:
            exchange.repeated = True
            self.start(exchange)
            return
        if failure == "RESET" and not was_stale:
            self.health.on_failure("connection reset")
        self._owner.tell(exchange, Failure[failure])

    def on_lost(self, connection: Carrier) -> None:
        self._connections.discard(connection)
        with suppress(ValueError):
            self.idle.remove(connection)
        self._dial_as_needed()
        if self._on_empty is not None and not self._connections and not self._on_empty.done():
            self._on_empty.set_result(None)

    # --- dials ---

    def _wait(self, exchange: Exchange, line: OrderedDict[Exchange, None]) -> None:
        exchange.holder = self
        line[exchange] = None
        self._dial_as_needed()

    def _lack_dials(self) -> bool:
        return len(self.waiting) + len(self._waiting_for_fresh) > len(self._dials)

    def _dial_as_needed(self) -> None:
        while self._lack_dials() and len(self._connections) + len(self._dials) < MAX_CONNECTIONS:
            self._dials.add(self._loop.create_task(self._dial()))

    async def _dial(self) -> None:
        try:
            connection: Carrier | str = await self._connect()
        finally:
            self._dials.discard(asyncio.current_task())
        if isinstance(connection, str):
            self._on_dial_failed(connection)
        elif self._waiting_for_fresh:
            connection.carry(self._waiting_for_fresh.popitem(last=False)[0])
        else:
            self.on_free(connection)

    def _on_dial_failed(self, reason: str) -> None:
        self.health.on_refused(reason)
        if self._lack_dials():
            line = self._waiting_for_fresh or self.waiting
            exchange = line.popitem(last=False)[0]
            exchange.holder = None
            self._dial_as_needed()
            self._owner.on_refused(exchange)

    async def _connect(self) -> Carrier | str:
        """A new connection, or the reason why there is none. Nothing is left open when this is cancelled."""
        settings = self._settings
        connection = Carrier(self, settings.max_reply_bytes, settings.drop, settings.max_idle_s)
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await self._loop.create_connection(
                    lambda: connection,
                    self._origin.host,
                    self._origin.port,
                    ssl=settings.tls if self._origin.scheme == "https" else None,
                    server_hostname=settings.server_hostname if self._origin.scheme == "https" else None,
                )
        except (OSError, UnicodeError) as error:  # TimeoutError, gaierror and SSLError are OSErrors
            connection.drop()
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        except BaseException:
            connection.drop()
            raise
        if not connection.is_open():
            return "closed at once"
        self._connections.add(connection)
        return connection

    async def _probe(self) -> bool:
        connection = await self._connect()
        if isinstance(connection, str):
            return False
        self.on_free(connection)
        return True

    # --- idle connections ---

    def _sweep_at(self, when_s: float) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self.sweep_at_s = when_s
        self._sweep_timer = self._loop.call_at(when_s, self._sweep)

    def _sweep(self) -> None:
        """Close idle connections whose time is over; one timer for all of them."""
        now_s = self._loop.time()
        over = [connection for connection in self.idle if connection.reuse_until_s <= now_s]
        self.idle[:] = [connection for connection in self.idle if connection.reuse_until_s > now_s]
        for connection in over:
            connection.drop()
        self._sweep_timer = None
        self.sweep_at_s = math.inf
        if self.idle:
            self._sweep_at(min(connection.reuse_until_s for connection in self.idle))
