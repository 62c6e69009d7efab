"""Several gateways, one set of limits: whoever comes from many devices by many doors has no more than by one."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from tests.support.envelope import worst_overshoot
from tests.support.farside import FarSide
from tests.support.redis import RedisServer
from tests.support.service import Service, limits
from tests.support.sockets import Socket

BURST, RATE = 40, 40
DEVICES = 5
REFUSAL = {"code": 111, "message": "too many requests", "temporary": True}


@pytest.fixture
def nodes(tmp_path):
    """The WebSocket addresses of two gateways that share a Redis."""
    with ExitStack() as running:
        redis = running.enter_context(RedisServer(tmp_path / "redis"))
        far = running.enter_context(FarSide())
        settings = {
            **limits("redis_user_command", publish=(RATE, "1s", BURST)),
            "redis": {"address": redis.address},
            "gateway": {"enabled": True, "address": "127.0.0.1:0", "centrifugo": [far.base]},
        }
        services = [running.enter_context(Service(tmp_path / str(number), settings)) for number in (1, 2)]
        yield [f"ws://{service.gateway}/connection/websocket" for service in services]


class Device:
    """Publishes as fast as it is answered, and remembers when it was let."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self.admitted: list[tuple[float, float]] = []
        self.refused = 0

    async def publish(self) -> None:
        sent = time.monotonic()
        answer = await self._socket.ask("publish", channel="news", data={})
        if "publish" in answer:
            self.admitted.append((sent, time.monotonic()))
        else:
            assert answer["error"] == REFUSAL
            self.refused += 1


def test_a_user_with_five_devices_on_two_nodes_has_one_set_of_limits(nodes):
    async def run() -> list[tuple[float, float]]:
        sockets = [await (await Socket.open(nodes[number % 2])).connect("ann") for number in range(DEVICES)]
        devices = [Device(socket) for socket in sockets]

        def is_enough() -> bool:
            return all(one.refused for one in devices) and sum(len(one.admitted) for one in devices) > 3 * BURST

        async def keep_publishing(device: Device) -> None:
            while not is_enough():
                await device.publish()

        async with asyncio.timeout(40):
            await asyncio.gather(*map(keep_publishing, devices))
        await asyncio.gather(*(socket.close() for socket in sockets))
        return [times for one in devices for times in one.admitted]

    assert worst_overshoot(asyncio.run(run()), BURST, RATE) <= 0


def test_another_user_of_the_same_nodes_has_limits_of_its_own(nodes):
    async def run():
        ann, bob = [await (await Socket.open(nodes[0])).connect(user) for user in ("ann", "bob")]
        while "publish" in await ann.ask("publish", channel="news", data={}):
            pass
        answers = [await bob.ask("publish", channel="news", data={}) for _ in range(BURST // 2)]
        assert all("publish" in one for one in answers)
        for socket in (ann, bob):
            await socket.close()

    asyncio.run(run())
