"""Demand without end: many connections that publish as fast as they are answered, and what became of it."""

import asyncio
import json
import time
from collections.abc import Callable

from tests.support.service import event
from tests.support.wire import post

REFUSED_WITHIN_S = 20.0


class Hammer:
    """Publishes for one user over many connections. `admitted`, `refused`: (sent, received) times in s, monotonic.

    A connection that breaks is made anew and counted; what it was waiting for may have been admitted: it is in neither.
    """

    def __init__(self, address: Callable[[], str], connections: int = 64, user: str = "42"):
        self.address = address
        self.connections = connections
        self.request = post(json.dumps(event(user=user, channel="news")).encode())
        self.admitted: list[tuple[float, float]] = []
        self.refused: list[tuple[float, float]] = []
        self.broken = 0

    async def run(
        self, seconds: float, *meanwhile: tuple[float, Callable[[], object]], until_refused: bool = False
    ) -> None:
        """Hammer for a while; each of `meanwhile` is done in a thread that many seconds after the start.

        `until_refused` goes on until somebody was, on a machine that takes longer to ask for more than a limit allows.
        """
        self.until = time.monotonic() + seconds
        self._patience_s = REFUSED_WITHIN_S if until_refused else 0.0
        loop = asyncio.get_running_loop()

        async def later(after_s: float, action: Callable[[], object]) -> None:
            await asyncio.sleep(after_s)
            await loop.run_in_executor(None, action)

        await asyncio.gather(
            *(self._connection() for _ in range(self.connections)), *(later(*one) for one in meanwhile)
        )

    async def _connection(self) -> None:
        while not self._is_over():
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

    def _is_over(self) -> bool:
        now = time.monotonic()
        return now >= self.until and (bool(self.refused) or now >= self.until + self._patience_s)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self._is_over():
            sent = time.monotonic()
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if body == b'{"result":{}}':
                self.admitted.append((sent, time.monotonic()))
            else:
                assert b'"code":111' in body, body
                self.refused.append((sent, time.monotonic()))
