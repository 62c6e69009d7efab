"""The load, in a process of its own: raw sockets and frames made beforehand, so that it takes little of its core.

    python -m benchmarks.gateway.load KIND '{"port": …, "pid": …, …}'

KIND is a name in `KINDS`; what was measured is printed as one JSON object. CPU time and memory of the server under
test, `pid` and what it started, are read here, at the ends of the very time that is measured.
"""

import asyncio
import json
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import quantiles
from typing import Any, cast

import uvloop

from benchmarks.gateway.stands import API_KEY, CHANNEL, token
from benchmarks.load.cpu import spent
from benchmarks.load.processes import tree
from cpro._fast.wsframe import TEXT, build_frame

WARM_UP_S = 0.5
PATIENCE_S = 20.0
AT_A_TIME = 100
TICK_S = 0.001

UPGRADE = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT_OF_A_MESSAGE = "a message of the length that people write, more or less"


def _frame(command: dict) -> bytes:
    return build_frame(TEXT, json.dumps(command, separators=(",", ":")).encode(), mask_key=0x37FA213D)


PUBLISH = _frame({"id": 7, "publish": {"channel": "nobody", "data": {"text": TEXT_OF_A_MESSAGE}}})
PUBLISHED = build_frame(TEXT, b'{"id":7,"publish":{}}')
SUBSCRIBE = _frame({"id": 2, "subscribe": {"channel": CHANNEL}})
BROADCAST = json.dumps({"channel": CHANNEL, "data": {"text": TEXT_OF_A_MESSAGE}}, separators=(",", ":"))
DELIVERED = build_frame(TEXT, b'{"push":{"channel":"%b","pub":%b}}' % (
    CHANNEL.encode(), json.dumps({"data": {"text": TEXT_OF_A_MESSAGE}}, separators=(",", ":")).encode()
))  # fmt: skip


class Opening(asyncio.Protocol):
    """Upgrades, connects, and says the rest of `steps`, each when the one before is answered; then it is open."""

    def __init__(self, user: str, steps: list[bytes]) -> None:
        self._steps = [_frame({"id": 1, "connect": {"token": token(user)}}), *steps]
        self.opened: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by descent
        self._transport.write(UPGRADE)

    def data_received(self, data: bytes) -> None:
        if b'"error"' in data or (data.startswith(b"HTTP/1.1") and b" 101 " not in data[:16]):
            self.opened.set_exception(RuntimeError(f"not let in: {data!r}"))
        elif self._steps:
            self._transport.write(self._steps.pop(0))
        elif not self.opened.done():
            self.opened.set_result(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(RuntimeError("closed while it opened"))


class Steady(asyncio.Protocol):
    """An open connection: what comes is handed on, an end is a failure."""

    def __init__(self, on_data: Callable[[bytes], object], on_lost: Callable[[], object]) -> None:
        self.data_received = on_data  # type: ignore[method-assign, assignment]
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()


class Run:
    """What the connections of a measurement share."""

    def __init__(self, pid: int) -> None:
        self.count = 0
        self.fault = ""
        self._pid = pid

    def fail(self, fault: str) -> None:
        self.fault = self.fault or fault

    async def measure(self, seconds: float) -> dict[str, float]:
        """Let it run; what was counted and spent meanwhile."""
        await asyncio.sleep(WARM_UP_S)
        pids = tree(self._pid)
        used, count, began = spent(pids), self.count, time.perf_counter()
        await asyncio.sleep(seconds)
        used, count, took = spent(pids).since(used), self.count - count, time.perf_counter() - began
        if self.fault or not count:
            raise RuntimeError(self.fault or "nothing came")
        return {
            "cpu_us": used.run_ns / count / 1000,
            "per_s": count / took,
            "system_share": used.system_share,
            "cpu_share": used.run_ns / took / 1e9,
        }


async def connect(port: int, count: int, steps: list[bytes]) -> list[asyncio.Transport]:
    """Open `count` connections, some at a time."""
    loop = asyncio.get_running_loop()
    found: list[asyncio.Transport] = []
    while len(found) < count:
        some = min(AT_A_TIME, count - len(found))
        openings = [Opening(f"user{len(found) + number}", steps) for number in range(some)]
        await asyncio.gather(*(loop.create_connection(lambda one=one: one, "127.0.0.1", port) for one in openings))
        async with asyncio.timeout(PATIENCE_S):
            found += await asyncio.gather(*(one.opened for one in openings))
    return found


async def roundtrips(port: int, pid: int, connections: int, seconds: float) -> dict[str, float]:
    """Every client publishes again as soon as its last publish is answered."""
    run = Run(pid)
    for transport in await connect(port, connections, []):

        def on_data(data: bytes, write: Callable[[bytes], None] = transport.write) -> None:
            if data != PUBLISHED:
                run.fail(f"not published: {data!r}")
                return
            run.count += 1
            write(PUBLISH)

        transport.set_protocol(Steady(on_data, lambda: run.fail("a connection was closed")))
        transport.write(PUBLISH)
    return await run.measure(seconds)


async def paced(port: int, pid: int, connections: int, seconds: float, per_s: float) -> dict[str, float]:
    """Publishes at a fixed pace whatever the answers; how long those took, in µs."""
    run = Run(pid)
    transports = await connect(port, connections, [])
    sent: list[deque[float]] = [deque() for _ in transports]
    took: list[float] = []
    for transport, times in zip(transports, sent, strict=True):

        def on_data(data: bytes, times: deque[float] = times) -> None:
            now = time.perf_counter()
            for _ in range(len(data) // len(PUBLISHED)):
                took.append(now - times.popleft())
            run.count += 1

        transport.set_protocol(Steady(on_data, lambda: run.fail("a connection was closed")))
    pacing = asyncio.create_task(_pace(transports, sent, per_s))
    try:
        found = await run.measure(seconds)
    finally:
        pacing.cancel()
    waits = quantiles(took[int(WARM_UP_S * per_s) :], n=100)
    return {**found, "p50_us": waits[49] * 1e6, "p99_us": waits[98] * 1e6, "offered_per_s": per_s}


async def _pace(transports: list[asyncio.Transport], sent: list[deque[float]], per_s: float) -> None:
    """What is due since the last tick, on one connection after the other."""
    began, number = time.perf_counter(), 0
    while True:
        due = int((time.perf_counter() - began) * per_s)
        while number < due:
            place = number % len(transports)
            sent[place].append(time.perf_counter())
            transports[place].write(PUBLISH)
            number += 1
        await asyncio.sleep(TICK_S)


async def broadcast(port: int, pid: int, connections: int, seconds: float, api_port: int) -> dict[str, float]:
    """One message to everybody; the next as soon as everybody has it."""
    run = Run(pid)
    delivered, everybody = len(DELIVERED), len(DELIVERED) * connections
    missing = everybody
    publisher = await _publisher(api_port, run)

    def on_data(data: bytes) -> None:
        nonlocal missing
        run.count += 1
        missing -= len(data)
        if len(data) != delivered:
            run.fail(f"not what was sent: {data!r}")
        elif not missing:
            missing = everybody
            publisher()

    for transport in await connect(port, connections, [SUBSCRIBE]):
        transport.set_protocol(Steady(on_data, lambda: run.fail("a connection was closed")))
    publisher()
    return await run.measure(seconds)


async def _publisher(api_port: int, run: Run) -> Callable[[], None]:
    """A call publishes once, by the server API, on a connection that is kept."""
    body = BROADCAST.encode()
    head = f"POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {API_KEY}\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def on_data(data: bytes) -> None:
        if b"200 OK" not in data:
            run.fail(f"not published: {data!r}")

    steady = Steady(on_data, lambda: run.fail("the API hung up"))
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: steady, "127.0.0.1", api_port)
    return lambda: transport.write(request)


async def idle(port: int, pid: int, connections: int) -> dict[str, float]:
    """Connections that have said who they are, and nothing since; bytes of the server's for each."""
    some = min(200, connections)  # what the first ones allocate once for all
    await connect(port, some, [])
    before = _private_bytes(pid)
    await connect(port, connections, [])
    await asyncio.sleep(1.0)
    return {"bytes": (_private_bytes(pid) - before) / connections, "connections": connections}


def _private_bytes(pid: int) -> int:
    return sum(_anonymous_bytes(Path(f"/proc/{one}/status")) for one in tree(pid))


def _anonymous_bytes(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


KINDS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, float]]]] = {
    "roundtrips": roundtrips,
    "broadcast": broadcast,
    "paced": paced,
    "light": paced,
    "idle": idle,
}


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(uvloop.run(KINDS[sys.argv[1]](**json.loads(sys.argv[2])))))
