"""Steady demand whose every answer is known beforehand: what is answered wrongly, and which connections break."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.service import event
from tests.support.wire import post

STUCK_S = 10.0


@dataclass
class Broken:
    """A connection that ended while it was needed."""

    port: int
    """The client's."""
    at: float


@dataclass
class Load:
    """RPCs to an echoing backend (`support.scripted.echo`) over keep-alive connections; a broken one is made anew."""

    address: Callable[[], str]
    connections: int = 24
    pause_s: float = 0.0
    reconnect: bool = True
    answered: int = 0
    wrong: list[object] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    refused: int = 0
    """Attempts to connect that failed."""
    slowest_s: float = 0.0
    ports: set[int] = field(default_factory=set)
    """Of the connections that are open."""

    async def run(self, seconds: float, *meanwhile: tuple[float, Callable[[], object]]) -> None:
        """Ask for a while; each of `meanwhile` is done in a thread that many seconds after the start."""
        self.until = time.monotonic() + seconds
        loop = asyncio.get_running_loop()

        async def later(after_s: float, action: Callable[[], object]) -> None:
            await asyncio.sleep(after_s)
            await loop.run_in_executor(None, action)

        callers = [self._caller(number) for number in range(self.connections)]
        await asyncio.gather(*callers, *(later(*one) for one in meanwhile))

    async def _caller(self, number: int) -> None:
        life = 0
        while time.monotonic() < self.until:
            life += 1
            try:
                host, port = self.address().rsplit(":", 1)
                reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.01)
                continue
            own_port = writer.get_extra_info("sockname")[1]
            self.ports.add(own_port)
            try:
                await self._talk(reader, writer, f"{number}-{life}")
            except (OSError, EOFError):
                self.broken.append(Broken(own_port, time.monotonic()))
                if not self.reconnect:
                    return
            finally:
                self.ports.discard(own_port)
                writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        turn = 0
        while time.monotonic() < self.until:
            turn += 1
            client = f"{name}-{turn}"
            began = time.monotonic()
            writer.write(post(json.dumps(event(client=client, method="echo")).encode(), b"/centrifugo/rpc"))
            try:
                async with asyncio.timeout(STUCK_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                    body = await reader.readexactly(length)
            except TimeoutError:
                self.wrong.append(f"{client} got no answer in {STUCK_S} s")
                return
            if not head.startswith(b"HTTP/1.1 200 ") or body != json.dumps({"result": {"data": client}}).encode():
                self.wrong.append((client, head, body))
            self.answered += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
