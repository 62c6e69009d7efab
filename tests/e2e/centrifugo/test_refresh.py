"""A refresh that cpro or the backend can't answer logs nobody out: Centrifugo asks again later."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from tests.e2e.centrifugo.conftest import OpenSdk, StartStack, backend_answer, eventually
from tests.support.backend import Received
from tests.support.centrifugo import free_port
from tests.support.sdks import Sdk, open_sdk
from tests.support.service import limits

pytestmark = pytest.mark.centrifugo

IMPATIENT = {
    "client": {"presence_update_interval": "500ms", "expired_close_delay": "500ms", "expired_sub_close_delay": "500ms"}
}
"""Centrifugo that looks for expired subscriptions often and closes what has expired soon."""

STAY = ("renewed", "over", "broken", "garbled", "silent")
"""Users by what happens to their refreshes; `over` is renewed once and then over the limit."""
GO = ("expired", "sub_expired")
"""The proof that these tests would notice: the backend does end these."""
EXPIRED, SUBSCRIPTION_EXPIRED = 3005, 2501


def in_seconds(seconds: int) -> dict:
    return {"result": {"expire_at": int(time.time()) + seconds}}


def expiring(received: Received) -> object:
    """Everything expires soon; refreshes are answered by the user's name."""
    event = received.path.rsplit("/", 1)[1]
    if event == "connect":
        answer = in_seconds(2)
        answer["result"]["user"] = received.json["data"]["name"]
        return answer
    if event == "subscribe":
        return in_seconds(1)
    if event not in ("refresh", "sub_refresh"):
        return {"result": {}}
    user = received.json["user"]
    if user == "silent":
        time.sleep(1.0)
    return {
        "over": in_seconds(1),
        "broken": (500, b""),
        "garbled": (200, b"<html>"),
        "expired": {"result": {"expired": True}},
        "sub_expired": {"result": {"expired": True}} if event == "sub_refresh" else in_seconds(3600),
    }.get(user, in_seconds(3600))


async def assert_untouched(client: Sdk, channel: str) -> None:
    """Still the first connection with the first subscription, and both work."""
    await client.publish(channel, {"still": "here"})
    await client.until("publication", channel=channel)
    assert len(client.seen("connecting")) == 1
    assert len(client.seen("subscribing")) == 1
    assert not client.seen("disconnected")
    assert not client.seen("unsubscribed")


def test_refreshes_refused_failed_and_good_keep_everybody_connected_and_subscribed(stack: StartStack, sdk: OpenSdk):
    started = stack(limits(refresh=(1, "1h"), sub_refresh=(1, "1h")), answer=expiring, centrifugo=IMPATIENT)

    def all_have_been_asked() -> bool:
        return all(
            started.operations(event, "refused") >= 1 and started.operations(event, "failed") >= 3
            for event in ("refresh", "sub_refresh")
        )

    async def run():
        async with AsyncExitStack() as opened:
            clients = {
                user: await opened.enter_async_context(sdk(started.url, data={"name": user})) for user in STAY + GO
            }
            for user, client in clients.items():
                await client.ready()
                await client.subscribe(user)
            await clients["expired"].until("connecting", code=EXPIRED)
            await clients["sub_expired"].until("subscribing", code=SUBSCRIPTION_EXPIRED)
            await eventually(all_have_been_asked)
            for user in STAY:
                await assert_untouched(clients[user], user)

    asyncio.run(run())
    assert started.operations("refresh", "invalid") == started.operations("sub_refresh", "invalid") == 0


def test_dead_backend_keeps_everybody_connected_and_subscribed(stack: StartStack):
    dead = f"http://127.0.0.1:{free_port()}/"
    started = stack(
        {"proxy": {"upstream": {"overrides": {"refresh": dead, "sub_refresh": dead}}}},
        answer=expiring,
        centrifugo=IMPATIENT,
    )

    async def run():
        async with open_sdk("python-json", started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            await ann.subscribed("room")
            await eventually(lambda: bool(started.operations("refresh", "failed")))
            await eventually(lambda: bool(started.operations("sub_refresh", "failed")))
            await assert_untouched(ann, "room")

    asyncio.run(run())


def test_default_and_total_do_not_count_refreshes(stack: StartStack):
    def often(received: Received) -> object:
        if received.path.endswith("/connect"):
            return expiring(received)
        return in_seconds(1) if received.path.endswith("/refresh") else backend_answer(received)

    started = stack(limits(connect=(1, "1h"), default=(1, "1h"), total=(2, "1h")), answer=often, centrifugo=IMPATIENT)

    async def run():
        async with open_sdk("python-json", started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            await eventually(lambda: started.operations("refresh", "admitted") >= 3)
            await ann.publish("news", {})
            assert len(ann.seen("connecting")) == 1

    asyncio.run(run())
