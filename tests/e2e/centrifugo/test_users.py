"""Whose operation it is, when no backend says so: a trusted header names the user, or the address stands in for one."""

import asyncio

import pytest

from tests.e2e.centrifugo.conftest import OpenSdk, StartStack, merge
from tests.support.sdks import Refusal, Sdk, open_sdk
from tests.support.service import limits

pytestmark = pytest.mark.centrifugo

ALLOW = {"proxy": {"without_upstream": "allow"}}


async def publishes(client: Sdk, attempts: int) -> int:
    """How many of so many publishes go through; the others must be over the limit."""
    done = await asyncio.gather(*(client.publish("news", {}) for _ in range(attempts)), return_exceptions=True)
    assert all(one is None or (isinstance(one, Refusal) and one.code == 111) for one in done), done
    return done.count(None)


def test_trusted_header_names_the_user_of_a_connect(stack: StartStack, sdk: OpenSdk):
    settings = merge(ALLOW, {"proxy": {"connect_user_header": "X-User"}, **limits(publish=(3, "1h"))})
    started = stack(settings, answer=None)

    async def run():
        ann, bob = {"X-User": "ann"}, {"x-user": "bob"}
        async with (
            sdk(started.url, headers=ann) as one,
            sdk(started.url, headers=ann) as two,
            sdk(started.url, headers=bob) as other,
        ):
            for client in (one, two, other):
                await client.ready()
            await other.subscribed("news")
            assert await publishes(one, 2) + await publishes(two, 3) == 3
            assert (await other.until("publication", count=3))["user"] == "ann"
            assert await publishes(other, 4) == 3
            assert (await other.until("publication", count=6))["user"] == "bob"

    asyncio.run(run())


def test_nobody_is_let_in_without_the_trusted_header(stack: StartStack):
    started = stack(merge(ALLOW, {"proxy": {"connect_user_header": "X-User"}}), answer=None)

    async def run():
        async with open_sdk("python-json", started.url, headers={"X-Other": "ann"}) as client:
            await client.until("disconnected", code=3501)
            assert not client.seen("connected")

    asyncio.run(run())


def test_anonymous_users_are_told_apart_by_address(stack: StartStack, sdk: OpenSdk):
    settings = merge(ALLOW, limits(publish=(3, "1h")))
    settings["client"]["rate_limit"]["anonymous"] = "ip"
    started = stack(settings, answer=None, centrifugo={"client": {"allow_anonymous_connect_without_token": True}})

    async def run():
        here, there = {"X-Real-Ip": "192.0.2.1"}, {"X-Real-Ip": "2001:db8::7"}
        async with (
            sdk(started.url, headers=here) as one,
            sdk(started.url, headers=here) as two,
            sdk(started.url, headers=there) as other,
        ):
            for client in (one, two, other):
                await client.ready()
            assert await publishes(one, 2) + await publishes(two, 3) == 3
            assert await publishes(other, 4) == 3

    asyncio.run(run())


def test_anonymous_users_are_not_limited_per_user_unless_configured(stack: StartStack):
    started = stack(
        merge(ALLOW, limits(publish=(1, "1h"))),
        answer=None,
        centrifugo={"client": {"allow_anonymous_connect_without_token": True}},
    )

    async def run():
        async with open_sdk("python-json", started.url) as client:
            await client.ready()
            assert await publishes(client, 5) == 5

    asyncio.run(run())


def test_without_upstream_nothing_is_allowed_by_default(stack: StartStack, sdk: OpenSdk):
    started = stack(
        limits(publish=(100, "1s")),
        answer=None,
        centrifugo={"client": {"allow_anonymous_connect_without_token": True}},
    )

    async def run():
        async with sdk(started.url) as client:
            await client.ready()
            with pytest.raises(Refusal, match="103 permission denied"):
                await client.publish("news", {})
            with pytest.raises(Refusal, match="108 not available"):
                await client.rpc("any", {})
            await client.subscribe("news")
            await client.until("unsubscribed", code=103)

    asyncio.run(run())
