"""What is over a limit: the client is told so, keeps its connection, and gets on by itself when time has passed."""

import asyncio
import time

import pytest

from tests.e2e.centrifugo.conftest import OpenSdk, StartStack, backend_answer
from tests.support.backend import Received
from tests.support.sdks import Refusal, Sdk
from tests.support.service import limit, limits

pytestmark = pytest.mark.centrifugo

TOO_MANY = {"code": 111, "message": "too many requests", "temporary": True}
RATE = 10


async def outcomes(*operations) -> list[dict | None]:
    """What became of operations begun at once, in their order: None, or the error a client was given."""
    results = await asyncio.gather(*operations, return_exceptions=True)
    assert all(isinstance(one, Refusal) for one in results if isinstance(one, Exception)), results
    return [one.error if isinstance(one, Refusal) else None for one in results]


def assert_ten_pass(found: list[dict | None], took_s: float) -> None:
    """Ten and what refills meanwhile; the eleventh is refused if it came before that."""
    assert found[:RATE] == [None] * RATE
    refused = [one for one in found if one is not None]
    assert refused
    assert all(one == TOO_MANY for one in refused)
    assert found.count(None) <= RATE + RATE * took_s
    if took_s < 1 / RATE:
        assert found[RATE] == TOO_MANY


def test_eleventh_of_ten_publishes_a_second_is_refused_and_the_next_second_works(stack: StartStack, sdk: OpenSdk):
    started = stack(limits(publish=(RATE, "1s")))

    async def one_second(ann: Sdk) -> None:
        begin = time.monotonic()
        found = await outcomes(*(ann.publish("news", {"n": n}) for n in range(2 * RATE)))
        assert_ten_pass(found, time.monotonic() - begin)
        await asyncio.sleep(1.0)

    async def run():
        async with sdk(started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            await one_second(ann)
            await one_second(ann)
            assert not ann.seen("disconnected")
            assert len(ann.seen("connecting")) == 1

    asyncio.run(run())
    assert started.operations("publish", "admitted") == len(started.received("publish"))


def test_rpc_method_with_limits_of_its_own_is_refused_alone(stack: StartStack, sdk: OpenSdk):
    buckets = [{"interval": "1s", "rate": RATE}]
    rpc = {**limit((1000, "1s")), "method_overrides": [{"method": "costly", "buckets": buckets}]}
    started = stack(limits(rpc=rpc))

    async def run():
        async with sdk(started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            begin = time.monotonic()
            found = await outcomes(*(ann.rpc("costly", {}) for _ in range(2 * RATE)))
            assert_ten_pass(found, time.monotonic() - begin)
            assert await outcomes(*(ann.rpc("cheap", {}) for _ in range(2 * RATE))) == [None] * 2 * RATE
            await asyncio.sleep(1.0)
            assert await outcomes(*(ann.rpc("costly", {}) for _ in range(RATE))) == [None] * RATE

    asyncio.run(run())


def test_refused_subscriptions_recover_by_themselves(stack: StartStack, sdk: OpenSdk):
    started = stack(limits(subscribe=(2, "500ms")))
    channels = [f"room{number}" for number in range(5)]

    async def run():
        async with sdk(started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            for channel in channels:
                await ann.subscribe(channel)
            for channel in channels:
                await ann.until("subscribed", channel=channel)
                await ann.publish(channel, {"to": channel})
                await ann.until("publication", channel=channel)
            assert ann.seen("sub_error", code=111)
            assert not ann.seen("unsubscribed")
            assert len(ann.seen("connecting")) == 1

    asyncio.run(run())


def test_refused_connects_come_back_by_themselves(stack: StartStack, sdk: OpenSdk):
    started = stack(limits(connect=(1, "1500ms")))

    async def run():
        async with sdk(started.url, data={"name": "ann"}) as first, sdk(started.url, data={"name": "ann"}) as second:
            for client in (first, second):
                await client.ready()
                await client.publish("news", {})
                assert not client.seen("disconnected")
            assert first.seen("error", code=111) or second.seen("error", code=111)

    asyncio.run(run())
    assert started.operations("connect", "refused") >= 1
    assert started.operations("connect", "admitted") == 2


def test_client_block_limits_each_connection_and_user_block_all_of_a_user(stack: StartStack, sdk: OpenSdk):
    settings = limits("client_command", publish=(2, "1h"))
    settings["client"]["rate_limit"].update(limits(publish=(3, "1h"))["client"]["rate_limit"])
    started = stack(settings)

    async def run():
        async with sdk(started.url, data={"name": "ann"}) as one, sdk(started.url, data={"name": "ann"}) as other:
            await one.ready()
            await other.ready()
            assert (await outcomes(*(one.publish("news", {}) for _ in range(4)))).count(None) == 2
            assert (await outcomes(*(other.publish("news", {}) for _ in range(4)))).count(None) == 1

    asyncio.run(run())
    assert len(started.received("publish")) == 3


def test_backend_that_is_away_is_a_temporary_error(stack: StartStack, sdk: OpenSdk):
    def broken(received: Received) -> object:
        return backend_answer(received) if received.path.endswith("/connect") else (500, b"")

    started = stack(answer=broken)

    async def run():
        async with sdk(started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            [error] = await outcomes(ann.publish("news", {}))
            assert error == {"code": 100, "message": "internal server error", "temporary": True}
            await ann.subscribe("room")
            await ann.until("sub_error", code=100)
            started.backend.answer = backend_answer
            await ann.until("subscribed", channel="room")
            await ann.publish("news", {})

    asyncio.run(run())
