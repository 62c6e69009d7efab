"""What an update by a client costs the worker when it is folded, beside a publish that is refused.

A real cpro with one worker; the same connections post as fast as they are answered, in turns of the one and the other.
CPU time is the worker's, from the scheduler.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from tests.support.redis import RedisServer
from tests.support.service import Service, event, limit
from tests.support.wire import post

from benchmarks.load.cpu import spent

CONNECTIONS = 16
USER = "100042"
REFUSED_PUBLISHES = {"client": {"rate_limit": {"user_command": {"enabled": True, "publish": limit((1, "24h"))}}}}
CASES = {
    "publish": (event(USER, channel="chat:room42", data={"text": "Message 42"}), b'"code":111'),
    "rpc": (event(USER, method="update_user_status", data={}), b'{"result":{"data":{}}}'),
}


def compare(folder: Path, rounds: int, requests: int) -> dict[str, object]:
    """µs of CPU for each request, and median ratios."""
    with RedisServer(folder / "redis") as redis, ExitStack() as running:
        kinds = {
            "off": {},
            "embedded": {"user_status": {"enabled": True}},
            "redis": {"user_status": {"enabled": True}, "redis": {"address": redis.address}},
        }
        services = {
            name: running.enter_context(Service(folder / name, {**REFUSED_PUBLISHES, **settings}))
            for name, settings in kinds.items()
        }
        for one in services.values():
            one.post("publish", CASES["publish"][0])
        seen = [dict(_round(services, requests)) for _ in range(rounds + 1)][1:]
    found: dict[str, object] = {"cpu_us": {case: median(one[case] for one in seen) for case in seen[0]}}
    for kind in ("embedded", "redis"):
        pairs = [(one[f"{kind}: rpc"], one[f"{kind}: publish"], one["off: publish"]) for one in seen]
        found[f"{kind}: rpc to refused publish"] = median(rpc / publish for rpc, publish, _ in pairs)
        found[f"{kind}: refused publish to one without user_status"] = median(on / off for _, on, off in pairs)
    return found


def _round(services: dict[str, Service], requests: int) -> Iterator[tuple[str, float]]:
    for name, service in services.items():
        for case, (body, expected) in CASES.items():
            if name != "off" or case == "publish":
                with _worker_cpu(service, requests) as took:
                    asyncio.run(_drive(service.proxy, case, body, expected, requests))
                yield f"{name}: {case}", took[0]


@contextmanager
def _worker_cpu(service: Service, requests: int) -> Iterator[list[float]]:
    """µs for each request."""
    took: list[float] = []
    before = spent(service.workers())
    yield took
    took.append(spent(service.workers()).since(before).run_ns / 1000 / requests)


async def _drive(address: str, case: str, body: dict, expected: bytes, requests: int) -> None:
    request = post(json.dumps(body).encode(), f"/centrifugo/{case}".encode())

    async def one() -> None:
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(requests // CONNECTIONS):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            answer = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
            if expected not in answer:
                raise RuntimeError(f"{case}: {answer!r}")
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
