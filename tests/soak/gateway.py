"""Hours of mixed load on the gateway, with a real Centrifugo behind it: nothing differs, nothing grows.

    python -m tests.soak.gateway --minutes 60

SDKs of every kind come, use everything, and go; ruffians break things; settings are reloaded. Each client knows what it
must see, and which refusals it deserves. Prints what was done; exit code 1 with a list of what was different.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from tests.soak.patrons import LIMITS, STEADY, Patron, Ruffian, User, World
from tests.support.backend import Backend
from tests.support.centrifugo import Centrifugo, free_port, merge, part_by_cpro
from tests.support.processes import connections_to, open_files, owners, resident_bytes
from tests.support.scenario import CENTRIFUGO, application
from tests.support.sdks import HTTP_KINDS, SOCKET_KINDS, why_missing
from tests.support.service import Service

KINDS = [*SOCKET_KINDS, *SOCKET_KINDS, "python-json", "python-protobuf", *HTTP_KINDS]
RUFFIANS = 3
COUNT_EVERY_S = 0.1
LOOK_EVERY_S = 5.0
RELOAD_EVERY_S = 60.0
MOST_GROWTH_BYTES = 6 << 20
"""Of all workers together, from the second quarter to the last: what an allocator may need to come to rest."""


@dataclass
class Stand:
    service: Service
    centrifugo: Centrifugo


@contextmanager
def standing(exempt: list[str]) -> Iterator[Stand]:
    """Everything that takes part."""
    with tempfile.TemporaryDirectory(prefix="cpro-soak-") as folder, ExitStack() as running:
        backend = running.enter_context(Backend(application))
        port = free_port()
        settings = {
            "workers": 2,
            "shutdown": {"timeout": "2s"},
            "proxy": {"address": f"127.0.0.1:{free_port()}", "upstream": {"endpoint": backend.url, "timeout": "5s"}},
            "gateway": {"enabled": True, "address": "127.0.0.1:0", "centrifugo": [f"http://127.0.0.1:{port}"]},
            "user_status": {"enabled": True},
            "client": {"rate_limit": {"exempt_users": exempt, "user_command": _limits()}},
        }
        service = running.enter_context(Service(Path(folder) / "cpro", settings))
        more = {"sse": {"enabled": True}, "http_stream": {"enabled": True}}
        config = merge(merge(part_by_cpro(service.config), CENTRIFUGO), more)
        yield Stand(service, running.enter_context(Centrifugo(Path(folder) / "centrifugo", config, port)))


def _limits() -> dict:
    buckets = {kind: [{"interval": "1s", "rate": rate, "burst": burst}] for kind, (rate, burst) in LIMITS.items()}
    return {"enabled": True, **{kind: {"enabled": True, "buckets": one} for kind, one in buckets.items()}}


@dataclass(frozen=True)
class Look:
    """At the workers, at some time. Files without connections to the backend, and to and from Centrifugo: some of those
    are kept; how many clients Centrifugo has says whether any is a client's."""

    resident: int
    files: int
    connections: float
    clients: int


def look(stand: Stand) -> Look:
    service, workers = stand.service, stand.service.workers()[:2]
    urls = [service.settings["proxy"]["upstream"]["endpoint"], stand.centrifugo.base]
    kept = [(urlsplit(url).port, pid) for url in urls for pid in workers]
    files = sum(map(open_files, workers)) - sum(len(connections_to(port, pid)) for port, pid in kept)
    files -= len(owners(service.proxy, workers))
    (node,) = stand.centrifugo.api("info", {})["nodes"]
    return Look(sum(map(resident_bytes, workers)), files, connections(service), node["num_clients"])


def connections(service: Service) -> float:
    lines = service.get("/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("cpro_gateway_connections{"))


async def soak(stand: Stand, minutes: float, users: list[User], kinds: list[str], *, straight: bool) -> dict:
    """Run it; what was seen."""
    world = World(stand.centrifugo.url if straight else f"ws://{stand.service.gateway}/connection/websocket")
    before = look(stand)
    workers = stand.service.workers()
    patrons = [Patron(world, kind, users[number % len(users)], number) for number, kind in enumerate(kinds)]
    lives = [one.live() for one in [*patrons, *(Ruffian(world, number) for number in range(RUFFIANS))]]
    tasks = [asyncio.create_task(one) for one in [*lives, _count(world, stand.centrifugo)]]
    looks = await _watch(stand, minutes * 60)
    world.is_over = True
    await asyncio.wait(tasks, timeout=60)
    for task in tasks:
        if not task.done():
            world.differs(f"still at it: {task}")
            task.cancel()
        elif task.exception() is not None:
            world.differs(repr(task.exception()))
    after = await _quiet(stand, before)
    _judge(world, looks, before, after)
    if stand.service.workers() != workers:
        world.differs("a worker has died")
    at = [len(looks) // 4, len(looks) // 2, -1]
    return {
        "clients": kinds,
        "done": dict(sorted(world.done.items())),
        "resident MiB": {"before": before.resident >> 20, "on the way": [looks[place].resident >> 20 for place in at]},
        "files": [before.files, *(looks[place].files for place in at), after.files],
        "differences": world.differences,
    }


async def _count(world: World, centrifugo: Centrifugo) -> None:
    """The backend's part."""
    number = 0
    while not world.is_over:
        await asyncio.to_thread(centrifugo.api, "publish", {"channel": STEADY, "data": {"n": number}})
        number += 1
        await asyncio.sleep(COUNT_EVERY_S)


async def _watch(stand: Stand, seconds: float) -> list[Look]:
    """Look at the service from time to time, and have it read its settings again."""
    looks, end = [], time.monotonic() + seconds
    reload_at = time.monotonic() + RELOAD_EVERY_S
    while (now := time.monotonic()) < end:
        await asyncio.sleep(min(LOOK_EVERY_S, end - now))
        looks.append(await asyncio.to_thread(look, stand))
        if time.monotonic() > reload_at:
            reload_at += RELOAD_EVERY_S
            stand.service.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(stand.service.wait_for, "reloaded")
            print(f"{(end - time.monotonic()) / 60:.0f} minutes left: {looks[-1]}", file=sys.stderr, flush=True)
    return looks


async def _quiet(stand: Stand, before: Look) -> Look:
    """When everybody has left; as it is after some time if that changes nothing."""
    for _ in range(100):
        after = await asyncio.to_thread(look, stand)
        if (after.connections, after.clients) == (0, 0) and after.files <= before.files:
            break
        await asyncio.sleep(0.2)
    return after


def _judge(world: World, looks: list[Look], before: Look, after: Look) -> None:
    if after.connections or after.clients:
        world.differs(f"{after.connections} connections are left, of {after.clients} clients")
    if after.files > before.files:
        world.differs(f"{after.files} files are open, {before.files} were before")
    quarter = max(1, len(looks) // 4)
    early = median(one.resident for one in looks[quarter : 2 * quarter] or looks)
    late = median(one.resident for one in looks[-quarter:])
    if late - early > MOST_GROWTH_BYTES:
        world.differs(f"memory has grown from {early} to {late} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.gateway", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--straight", action="store_true", help="without the gateway, to see what differs all the same")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=sorted(set(KINDS)), help="of clients")
    options = parser.parse_args()
    kinds = [kind for kind in options.kinds if why_missing(kind) is None]
    users = [User(f"user-{number}", is_exempt=number % 3 == 0) for number in range(6)]
    with standing([one.name for one in users if one.is_exempt]) as stand:
        found = asyncio.run(soak(stand, options.minutes, users, kinds, straight=options.straight))
    print(json.dumps(found, indent=1))
    return 1 if found["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
