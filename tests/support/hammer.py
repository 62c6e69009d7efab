"""Demand without end: many connections that publish as fast as they are answered, and what of it was admitted."""

import asyncio
import json
import time
from collections.abc import Callable

from tests.support.service import event
from tests.support.wire import post


class Hammer:
    """Publishes for one user over many connections. `admitted` holds (sent, received) times in s, monotonic.

    A connection that breaks is made anew; what it was waiting for doesn't count as admitted.
    """

    def __init__(self, address: Callable[[], str], connections: int = 64, user: str = "42"):
        self.address = address
        self.connections = connections
        self.request = post(json.dumps(event(user=user, channel="news")).encode())
        self.admitted: list[tuple[float, float]] = []
        self.refused = 0
        self.broken = 0

    async def run(self, seconds: float, *meanwhile: tuple[float, Callable[[], object]]) -> None:
        """Hammer for a while; each of `meanwhile` is done in a thread that many seconds after the start."""
        self.until = time.monotonic() + seconds
        loop = asyncio.get_running_loop()

        async def later(after_s: float, action: Callable[[], object]) -> None:
            await asyncio.sleep(after_s)
            await loop.run_in_executor(None, action)

        await asyncio.gather(
            *(self._connection() for _ in range(self.connections)), *(later(*one) for one in meanwhile)
        )

    async def _connection(self) -> None:
        while time.monotonic() < self.until:
            writer = None
            try:
                host, port = self.address().rsplit(":", 1)
                reader, writer = await asyncio.open_connection(host, int(port))
                await self._talk(reader, writer)
            except (OSError, EOFError):
                self.broken += 1
                await asyncio.sleep(0.01)
            finally:
                if writer is not None:
                    writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while time.monotonic() < self.until:
            sent = time.monotonic()
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if body == b'{"result":{}}':
                self.admitted.append((sent, time.monotonic()))
            else:
                assert b'"code":111' in body, body
                self.refused += 1
