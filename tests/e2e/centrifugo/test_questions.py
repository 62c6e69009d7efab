"""PRO's example queries on the rows of real clients of a real Centrifugo, some of them behind the gateway."""

import asyncio

import pytest

from tests.e2e.centrifugo.conftest import OpenSdk, Stack, StartStack, eventually
from tests.support.analytics_service import analytics, drained
from tests.support.deeds import TOO_MANY, Deeds
from tests.support.rows import TABLES
from tests.support.sdks import Refusal
from tests.support.service import limits

pytestmark = pytest.mark.centrifugo

PUBLISHES = 3
"""That each user may make."""
CHAT = {"name": "chat", "subscribe_proxy_enabled": True, "publish_proxy_enabled": True}


async def live(deeds: Deeds, started: Stack, sdk: OpenSdk, number: int) -> None:
    """One client's life; every other one comes through the gateway, and of each user there are two."""
    user, channel = f"user_{number // 2}", ("chat:index", "news")[number % 4 // 2]
    url = started.gateway_url if number % 2 else started.url
    async with sdk(url, data={"name": user}) as client:
        await client.ready()
        deeds.clients[user] += 1
        await client.subscribed(channel)
        deeds.subscribed.add((channel, user))
        for turn in range(number):
            text = "x" * turn
            try:
                await client.publish(channel, text)
            except Refusal as refusal:
                if refusal.code != TOO_MANY:
                    raise
                deeds.refused[user] += 1
            else:
                deeds.published.append((channel, user, len(f'"{text}"')))
        assert sum(user == of for _, of, _ in deeds.published) <= PUBLISHES


def test_pros_example_queries_answer_rightly_on_what_real_clients_did(stack: StartStack, sdk: OpenSdk):
    settings = {**analytics(*TABLES), **limits(publish=(PUBLISHES, "24h")), "gateway": {"enabled": True}}
    started = stack(settings, centrifugo={"channel": {"namespaces": [CHAT]}})
    deeds = Deeds()

    async def run() -> None:
        for number in range(8):
            await live(deeds, started, sdk, number)
        await eventually(lambda: drained(started.service), 60)

    asyncio.run(run())
    assert min(deeds.attempts().values()) >= 1
    deeds.check(started.service)
