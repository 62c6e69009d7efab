"""cpro goes and comes back, or takes a new configuration, while clients publish without a pause."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from tests.e2e.centrifugo.conftest import Stack, StartStack, backend_answer
from tests.support.backend import Received
from tests.support.sdks import Refusal, Sdk, open_sdk
from tests.support.service import Service, limits

pytestmark = pytest.mark.centrifugo

PUBLISHERS = 4
PUBLISHES_PER_S = 100
CHANNEL = "news"
UNAVAILABLE = {"code": 100, "message": "internal server error", "temporary": True}


def unhurried(received: Received) -> object:
    """A backend that takes its time, so that whatever happens to cpro, something is in flight."""
    if received.path.endswith("/publish"):
        time.sleep(0.03)
    return backend_answer(received)


@dataclass
class Outcome:
    """One publish; `error` is None when it went through."""

    begun: float
    ended: float
    error: dict | None


@dataclass
class Load:
    """Publishers at work, and what became of each publish."""

    outcomes: dict[int, "Outcome"] = field(default_factory=dict)
    stopped: bool = False
    _next: int = 0

    async def publish_on(self, client: Sdk, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while not self.stopped:
            self._next += 1
            number, begun = self._next, time.monotonic()
            try:
                await client.publish(CHANNEL, {"id": number})
                error = None
            except Refusal as refusal:
                error = refusal.error
            self.outcomes[number] = Outcome(begun, time.monotonic(), error)
            await asyncio.sleep(max(0.0, begun + PUBLISHERS / PUBLISHES_PER_S - time.monotonic()))

    async def more(self, count: int) -> None:
        """Wait until that many more have gone through."""
        target = self.passed + count
        async with asyncio.timeout(20):
            while self.passed < target:
                await asyncio.sleep(0.01)

    @property
    def passed(self) -> int:
        return len(self.outcomes) - len(self.failures)

    @property
    def failures(self) -> list[Outcome]:
        return [one for one in self.outcomes.values() if one.error is not None]


def under_load(started: Stack, disturb) -> tuple[Load, Counter]:
    """Publish while `disturb(load)` runs and a little before and after; the load, and what a subscriber received."""
    load = Load()

    async def run() -> Counter:
        async with AsyncExitStack() as opened:

            async def client(name: str) -> Sdk:
                return await opened.enter_async_context(open_sdk("python-json", started.url, data={"name": name}))

            reader = await (await client("reader")).ready()
            await reader.subscribed(CHANNEL)
            publishers = [await (await client(f"user{number}")).ready() for number in range(PUBLISHERS)]
            tasks = [
                asyncio.create_task(load.publish_on(one, number / PUBLISHES_PER_S))  # not all in step
                for number, one in enumerate(publishers)
            ]
            await load.more(30)
            await disturb(load)
            await load.more(30)
            load.stopped = True
            await asyncio.gather(*tasks)
            await reader.until("publication", count=load.passed)
            for one in [reader, *publishers]:
                assert len(one.seen("connecting")) == 1
            return Counter(one["data"]["id"] for one in reader.seen("publication"))

    return load, asyncio.run(run())


def assert_each_happened_once(load: Load, started: Stack, received: Counter) -> None:
    """What went through reached backend and subscriber once; what failed reached neither."""
    expected = Counter(number for number, one in load.outcomes.items() if one.error is None)
    assert received == expected
    assert Counter(one.json["data"]["id"] for one in started.received("publish")) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_restart_loses_and_doubles_nothing_and_fails_only_while_away(stack: StartStack, workers: int):
    started = stack({"workers": workers, **limits(publish=(1000, "1s"))}, answer=unhurried)
    away: list[float] = []

    async def restart(load: Load) -> None:
        away.append(time.monotonic())
        assert await asyncio.to_thread(started.service.stop) == 0
        successor = Service(started.service.folder, started.service.settings)
        await asyncio.to_thread(successor.start)
        away.append(time.monotonic())
        started.service = successor

    try:
        load, received = under_load(started, restart)
    finally:
        started.service.__exit__()
    assert_each_happened_once(load, started, received)
    gone, back = away
    assert all(gone <= one.ended and one.begun <= back for one in load.failures), (away, load.failures)
    assert all(one.error == UNAVAILABLE for one in load.failures)


def test_reload_fails_nothing(stack: StartStack):
    settings = limits(publish=(1000, "1s"))
    started = stack({"workers": 2, **settings}, answer=unhurried)

    async def reload(load: Load) -> None:
        for rate in (900, 800, 700):
            changed = {**started.service.settings, **limits(publish=(rate, "1s"))}
            await asyncio.to_thread(started.service.reload, changed)
            await load.more(20)

    load, received = under_load(started, reload)
    assert not load.failures
    assert_each_happened_once(load, started, received)


def test_reload_puts_new_limits_in_force_under_a_connected_client(stack: StartStack):
    started = stack(limits(publish=(2, "1h")))

    async def count(client: Sdk, attempts: int) -> int:
        done = await asyncio.gather(*(client.publish(CHANNEL, {}) for _ in range(attempts)), return_exceptions=True)
        return done.count(None)

    async def run():
        async with open_sdk("python-json", started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            assert await count(ann, 5) == 2
            changed = {**started.service.settings, **limits(publish=(5, "1m"))}
            await asyncio.to_thread(started.service.reload, changed)
            assert await count(ann, 7) == 5

    asyncio.run(run())
