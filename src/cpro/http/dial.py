"""New connections to servers that are spoken to as a stream: each is one client's alone, and never used again."""

import asyncio
import itertools
import ssl
from asyncio import BaseTransport, Transport
from asyncio import Protocol as Leg
from collections.abc import Callable, Sequence

from cpro.http.endpoints import Origin, parse_endpoint

__all__ = ["BaseTransport", "Dialer", "Leg", "Transport"]

MAX_SKIPPED_S = 5.0
"""How long a server that refused a connection is asked last."""


class Dialer:
    """Goes round the servers of one kind. Owned by a worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        urls: Sequence[str],
        *,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> None:
        """`urls` name the servers (ConfigError for one that can't be read); their paths are of no interest here."""
        self._loop = loop
        self._origins = [parse_endpoint(url).origin for url in urls]
        self._turns = itertools.cycle(range(len(self._origins)))
        self._timeout_s = timeout_s
        self._tls = tls
        self._server_hostname = server_hostname
        self._avoided_until_s: dict[Origin, float] = {}
        self._dials: set[asyncio.Task[None]] = set()

    def dial(
        self, leg: Leg, on_refused: Callable[[], object], on_chosen: Callable[[Origin], object] | None = None
    ) -> None:
        """Connect `leg` to a server; `on_refused` is called when none takes the connection.

        `on_chosen` hears of each server that is tried, before `leg` hears anything of it."""
        dial = self._loop.create_task(self._dial(leg, on_refused, on_chosen))
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def close(self) -> None:
        """Give up the dials under way; their legs hear nothing any more."""
        dials = list(self._dials)
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)

    async def _dial(
        self, leg: Leg, on_refused: Callable[[], object], on_chosen: Callable[[Origin], object] | None
    ) -> None:
        for origin in self._in_turn():
            if on_chosen is not None:
                on_chosen(origin)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._connect(origin, leg)
            except (OSError, TimeoutError):  # ssl.SSLError is an OSError
                self._avoided_until_s[origin] = self._loop.time() + MAX_SKIPPED_S
            else:
                self._avoided_until_s.pop(origin, None)
                return
        on_refused()

    def _in_turn(self) -> list[Origin]:
        """All of them, the next first, those that failed lately last."""
        first = next(self._turns)
        turn = self._origins[first:] + self._origins[:first]
        now_s = self._loop.time()
        return sorted(turn, key=lambda origin: self._avoided_until_s.get(origin, 0.0) > now_s)

    async def _connect(self, origin: Origin, leg: Leg) -> None:
        is_https = origin.scheme == "https"
        await self._loop.create_connection(
            lambda: leg,
            origin.host,
            origin.port,
            ssl=(self._tls or ssl.create_default_context()) if is_https else None,
            server_hostname=(self._server_hostname or origin.host) if is_https else None,
        )
