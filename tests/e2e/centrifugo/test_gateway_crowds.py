"""Many clients behind the gateway: idle ones cost little, and all get through restarts of Centrifugo."""

import asyncio
import random
import resource
import signal

import pytest

from tests.e2e.centrifugo.conftest import Stack, StartStack, eventually, start_alone, without_proxies
from tests.support.processes import open_files, resident_bytes
from tests.support.sockets import ClosedError, Socket, open_many

pytestmark = pytest.mark.centrifugo

CHANNELS = {"allow_subscribe_for_client": True, "allow_publish_for_client": True, "presence": True}
MOST_BYTES = 16 * 1024
"""Memory for an idle connection, both legs."""


def start_roomy(stack: StartStack, **settings: object) -> Stack:
    """The gateway in front of a Centrifugo that asks nobody and counts nobody."""

    def change(config: dict) -> None:
        without_proxies(config)
        config["client"]["connection_limit"] = 0
        config["channel"] = {"without_namespace": CHANNELS}

    return start_alone(stack, {"shutdown": {"timeout": "1s"}, **settings}, change=change)


@pytest.fixture(autouse=True)
def files():
    """As many as this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_idle_connections_cost_little_and_hear_everything(stack: StartStack, files: int, count: int):
    if files < count + 1000:
        pytest.skip(f"no more than {files} files")
    started = start_roomy(stack, workers=2)
    workers = started.service.workers()[:2]

    async def run():
        some = await open_many(started.gateway_url, 100)  # what the first ones allocate once for all
        before = sum(map(resident_bytes, workers))
        clients = await open_many(started.gateway_url, count)
        assert (sum(map(resident_bytes, workers)) - before) / count < MOST_BYTES
        await asyncio.gather(*(one.ask("subscribe", channel="news") for one in clients))
        await asyncio.to_thread(started.centrifugo.api, "publish", {"channel": "news", "data": 1})
        for one in clients:
            assert (await one.push())["pub"]["data"] == 1
        assert all(["publish" in await one.ask("publish", channel="other", data=1) for one in clients[::50]])
        await asyncio.gather(*(one.close() for one in [*some, *clients]))
        await eventually(lambda: all(open_files(worker) < 100 for worker in workers))

    asyncio.run(run())


class Faithful:
    """Subscribes, and comes back whenever it is sent away; remembers how that was."""

    def __init__(self, url: str, number: int) -> None:
        self._url = url
        self._user = f"user-{number}"
        self.ends: list[int] = []
        self.heard: list[int] = []
        self.is_in = False

    async def stay(self) -> None:
        while True:
            try:
                socket = await Socket.open(self._url)
            except (ClosedError, OSError):
                await asyncio.sleep(random.uniform(0.1, 0.5))
                continue
            try:
                await self._listen(socket)
            except ClosedError as closed:
                self.ends.append(closed.code)
            finally:
                self.is_in = False
                await socket.close()

    async def _listen(self, socket: Socket) -> None:
        await socket.connect(self._user)
        assert "subscribe" in await socket.ask("subscribe", channel="news")
        self.is_in = True
        while True:
            try:
                self.heard.append((await socket.push())["pub"]["data"])
            except TimeoutError:  # nothing to hear
                continue


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_clients_come_back_when_centrifugo_does(stack: StartStack, count: int):
    started = start_roomy(stack)
    (worker,) = started.service.workers()[:1]
    clients = [Faithful(started.gateway_url, number) for number in range(count)]

    async def everybody_hears(number: int) -> None:
        await eventually(lambda: all(one.is_in for one in clients), 60)
        await asyncio.to_thread(started.centrifugo.api, "publish", {"channel": "news", "data": number})
        await eventually(lambda: all(one.heard[-1:] == [number] for one in clients), 30)

    async def run():
        staying = [asyncio.create_task(one.stay()) for one in clients]
        await everybody_hears(1)
        files = open_files(worker)
        await asyncio.to_thread(started.centrifugo.__exit__)
        await asyncio.to_thread(started.centrifugo.__enter__)
        await everybody_hears(2)
        started.centrifugo._process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(started.centrifugo._process.wait, 10)
        await asyncio.to_thread(started.centrifugo.__enter__)
        await everybody_hears(3)
        assert open_files(worker) <= files + 10
        for task in staying:
            task.cancel()
        await asyncio.gather(*staying, return_exceptions=True)

    asyncio.run(run())
    assert all(one.heard == [1, 2, 3] for one in clients)
    assert all(one.ends[0] == 3001 for one in clients), "they heard that it was shut down"
    assert all(set(one.ends[1:]) <= {0} for one in clients), "then that it was gone"
    assert started.service.workers()[:1] == [worker]
