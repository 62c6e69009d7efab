"""What is allowed works: official clients, through Centrifugo and cpro, to a backend and back."""

import asyncio
import json
from collections.abc import Awaitable

import pytest

from tests.e2e.centrifugo.conftest import OpenSdk, StartStack, backend_answer
from tests.support.backend import Received
from tests.support.sdks import Refusal, open_sdk, why_missing
from tests.support.service import limits

pytestmark = pytest.mark.centrifugo


def add_answer(received: Received) -> object:
    """The usual backend, with one method: `add`."""
    if received.path.endswith("/rpc"):
        return {"result": {"data": {"sum": sum(received.json["data"])}}}
    return backend_answer(received)


def test_allowed_operations_work_through_all_four_proxies(stack: StartStack, sdk: OpenSdk):
    started = stack(limits(default=(1000, "1s")), answer=add_answer)

    async def run():
        async with sdk(started.url, data={"name": "ann"}) as ann, sdk(started.url, data={"name": "bob"}) as bob:
            await ann.ready()
            await bob.ready()
            await ann.subscribed("news")
            await bob.publish("news", {"text": "hé <&>", "n": [1, 2.5, None]})
            publication = await ann.until("publication")
            assert publication["data"] == {"text": "hé <&>", "n": [1, 2.5, None]}
            assert publication["user"] == "bob"
            assert await bob.rpc("add", [1, 2, 39]) == {"sum": 42}

    asyncio.run(run())
    assert [one.json["user"] for one in started.received("publish")] == ["bob"]
    assert [one.json["user"] for one in started.received("subscribe")] == ["ann"]
    for event, times in [("connect", 2), ("subscribe", 1), ("publish", 1), ("rpc", 1)]:
        assert started.operations(event, "admitted") == times


def test_backend_has_the_last_word(stack: StartStack, sdk: OpenSdk):
    def refuse_publish(received: Received) -> object:
        if received.path.endswith("/publish"):
            return {"error": {"code": 403, "message": "not here", "temporary": False}}
        if received.path.endswith("/rpc"):
            return {"disconnect": {"code": 4501, "reason": "enough"}}
        return backend_answer(received)

    started = stack(answer=refuse_publish)

    async def run():
        async with sdk(started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            with pytest.raises(Refusal) as refused:
                await ann.publish("news", {})
            assert refused.value.error == {"code": 403, "message": "not here", "temporary": False}
            leaving = asyncio.create_task(ann.rpc("any", {}))
            await ann.until("disconnected", code=4501)
            await asyncio.gather(leaving, return_exceptions=True)

    asyncio.run(run())


def test_secret_travels_by_centrifugos_static_header(stack: StartStack):
    started = stack({"proxy": {"secret": "hush-hush"}})

    async def run():
        async with open_sdk("python-json", started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            await ann.publish("news", {})

    asyncio.run(run())
    assert started.operations("publish", "admitted") == 1
    assert not any("hush" in json.dumps(one.headers) for one in started.backend.received)


def test_centrifugo_without_the_secret_is_refused(stack: StartStack):
    def forget_secret(config: dict) -> None:
        del config["client"]["proxy"]["connect"]["http"]

    started = stack({"proxy": {"secret": "hush-hush"}}, change=forget_secret)

    async def run():
        async with open_sdk("python-json", started.url, data={"name": "ann"}) as ann:
            await ann.until("error", count=2)
            assert not ann.seen("connected")

    asyncio.run(run())
    assert started.backend.received == []
    assert "401" in started.centrifugo.log


async def error_of(change: Awaitable[None]) -> int:
    """The code a map change is answered with; 0 for none.

    Centrifugo 6.9.1 does what the proxy allowed and then answers 107, because its handlers leave the key out of
    their reply to the library (internal/proxy/map_publish_handler.go).
    """
    try:
        await change
    except Refusal as refusal:
        return 0 if refusal.code == 107 else refusal.code
    return 0


def test_map_changes_are_throttled_and_arrive(stack: StartStack):
    if reason := why_missing("js-json"):
        pytest.skip(reason)
    namespace = {
        "name": "board",
        "subscription_type": "map",
        "map": {"mode": "ephemeral", "key_ttl": "60s"},
        "subscribe_proxy_enabled": False,  # Centrifugo 6.9.1 answers 107 to every map subscription that a proxy allowed
        "allow_subscribe_for_client": True,
    }
    buckets = [{"interval": "1h", "rate": 2}]
    override = {"namespace_overrides": [{"namespace_name": "board", "buckets": buckets}], "enabled": True}
    started = stack(
        limits(map_publish=override, map_remove=override), centrifugo={"channel": {"namespaces": [namespace]}}
    )

    async def run():
        async with open_sdk("js-json", started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            await ann.map_subscribe("board:one")
            await ann.until("subscribed", channel="board:one")
            for number in range(2):
                assert await error_of(ann.map_publish("board:one", f"k{number}", {"n": number})) == 0
                await ann.until("update", key=f"k{number}", data={"n": number})
            assert await error_of(ann.map_publish("board:one", "k3", {})) == 111
            for number in range(2):
                assert await error_of(ann.map_remove("board:one", f"k{number}")) == 0
                await ann.until("update", key=f"k{number}", removed=True)
            assert await error_of(ann.map_remove("board:one", "k1")) == 111

    asyncio.run(run())
    assert [one.json["key"] for one in started.received("map_publish")] == ["k0", "k1"]
    assert [one.json["key"] for one in started.received("map_remove")] == ["k0", "k1"]
