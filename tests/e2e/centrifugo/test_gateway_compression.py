"""permessage-deflate between clients and the gateway: SDKs that offer it see no difference, refusals included."""

import asyncio
import json
import zlib

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate

from tests.e2e.centrifugo.conftest import OpenSdk, Stack, StartStack, start_alone, without_proxies
from tests.support.sdks import Refusal
from tests.support.service import limits
from tests.support.sockets import token_of

pytestmark = pytest.mark.centrifugo

PATIENCE_S = 20.0
TEXT = "the same again and again, " * 200


@pytest.fixture
def compressing(stack: StartStack):
    def start(**gateway: object) -> Stack:
        return start_alone(stack, limits(publish=(2, "1h")), **{"compression": True, **gateway})

    return start


def test_an_application_sees_no_difference(compressing, sdk: OpenSdk):
    started = compressing()

    async def run() -> None:
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", {"text": TEXT})
            await ann.publish("news", {"text": "short"})
            await ann.until("publication", count=2)
            with pytest.raises(Refusal) as refused:
                await ann.publish("news", {"text": TEXT})
            assert refused.value.error["code"] == 111
            assert await ann.history("news", 5) == [{"text": TEXT}, {"text": "short"}]
            await ann.unsubscribe("news")

    asyncio.run(run())


async def ask(client: ClientConnection, *commands: dict) -> list[dict]:
    """Send commands in one frame; their replies, in the order of ids."""
    await client.send("\n".join(json.dumps(one) for one in commands))
    replies: list[dict] = []
    while len(replies) < len(commands):
        message = await asyncio.wait_for(client.recv(), PATIENCE_S)
        replies += [one for one in map(json.loads, message.splitlines()) if "id" in one]
    return sorted(replies, key=lambda one: one["id"])


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_a_client_that_is_strict_about_the_rfc_understands(compressing, bits: int):
    started = compressing()
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=True)

    async def run() -> None:
        async with connect(started.gateway_url, compression=None, extensions=[offer]) as client:
            (agreed,) = client.protocol.extensions
            assert isinstance(agreed, PerMessageDeflate)
            assert agreed.remote_no_context_takeover
            assert agreed.local_no_context_takeover
            assert agreed.remote_max_window_bits == bits
            replies = await ask(
                client,
                {"id": 1, "connect": {"token": token_of("ann")}},
                {"id": 2, "subscribe": {"channel": "news"}},
                *({"id": number, "publish": {"channel": "news", "data": TEXT}} for number in (3, 4, 5)),
                {"id": 6, "history": {"channel": "news", "limit": 5}},
            )
            assert [list(reply)[1] for reply in replies] == [
                "connect",
                "subscribe",
                "publish",
                "publish",
                "error",
                "history",
            ]
            assert [one["data"] for one in replies[-1]["history"]["publications"]] == [TEXT, TEXT]

    asyncio.run(run())


def test_pushes_of_a_one_way_connection_are_compressed_too(stack: StartStack):
    def change(config: dict) -> None:
        without_proxies(config)
        config["uni_websocket"] = {"enabled": True}

    started = start_alone(stack, {}, change=change, compression=True)
    token = token_of("ann", channels=["news"])
    url = started.gateway_url.replace("/websocket", "/uni_websocket")

    async def run() -> None:
        async with connect(url) as client:
            assert [one.name for one in client.protocol.extensions] == ["permessage-deflate"]
            await client.send(json.dumps({"token": token}))
            assert "connect" in json.loads(await asyncio.wait_for(client.recv(), PATIENCE_S))
            started.centrifugo.api("publish", {"channel": "news", "data": TEXT})
            push = json.loads(await asyncio.wait_for(client.recv(), PATIENCE_S))
            assert push["pub"]["data"] == TEXT

    asyncio.run(run())


def test_who_offers_nothing_gets_nothing(compressing):
    started = compressing()

    async def run() -> None:
        async with connect(started.gateway_url, compression=None) as client:
            assert client.protocol.extensions == []
            (reply,) = await ask(client, {"id": 1, "connect": {"token": token_of("ann")}})
            assert "connect" in reply

    asyncio.run(run())


def test_where_it_is_off_an_offer_is_declined(compressing):
    started = compressing(compression=False)

    async def run() -> None:
        async with connect(started.gateway_url) as client:
            assert client.protocol.extensions == []

    asyncio.run(run())


def test_a_bomb_closes_the_connection_and_reaches_nobody(compressing):
    started = compressing(message_size_limit=10_000)

    async def run() -> None:
        async with connect(started.gateway_url) as client:
            await ask(client, {"id": 1, "connect": {"token": token_of("ann")}})
            bomb = json.dumps({"id": 2, "publish": {"channel": "news", "data": " " * 1_000_000}})
            assert len(zlib.compress(bomb.encode())) < 10_000
            await client.send(bomb)
            await asyncio.wait_for(client.wait_closed(), PATIENCE_S)
            assert client.close_code == 1009

    asyncio.run(run())
    assert started.operations("publish", "admitted", door="gateway") == 0
