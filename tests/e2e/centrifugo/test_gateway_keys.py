"""Published keys: cpro and Centrifugo take the same tokens, and the gateway does without when they can't be had."""

import asyncio
import threading

import pytest

from tests.e2e.centrifugo.conftest import OpenSdk, Stack, StartStack, eventually, start_alone
from tests.support.keys import KeyServer, SigningKey, give, key_set
from tests.support.service import limits

pytestmark = pytest.mark.centrifugo


@pytest.fixture
def start(stack: StartStack):
    def start(ours: str, theirs: str, **token: str) -> Stack:
        """`ours` is where cpro looks for keys, `theirs` where Centrifugo does."""

        def change(config: dict) -> None:
            config.clear()
            config.update({"client": {"token": {"jwks_public_endpoint": theirs, **token}}})

        own = {"jwks_public_endpoint": ours, **token}
        return start_alone(stack, limits(connect=(1, "1h")), change=change, token=own)

    return start


@pytest.mark.parametrize("algorithm", ["RS256", "ES384", "EdDSA"])
def test_tokens_of_published_keys_connect_and_are_charged(start, sdk: OpenSdk, algorithm: str):
    key, stranger = SigningKey("k", algorithm), SigningKey("stranger", algorithm)
    with KeyServer(key_set(key)) as ours, KeyServer(key_set(key)) as theirs:
        started = start(ours.url, theirs.url)

        async def run() -> None:
            await eventually(lambda: len(ours.asked) == 1)
            async with sdk(started.gateway_url, token=stranger.sign({"sub": "ann"})) as mallory:
                await mallory.until("disconnected", code=3500)
            async with sdk(started.gateway_url, token=key.sign({"sub": "ann"})) as ann:
                await ann.ready()
                async with sdk(started.gateway_url, token=key.sign({"sub": "ann"})) as again:
                    await again.until("error", code=111)

        asyncio.run(run())


def test_without_an_answer_clients_connect_by_what_centrifugo_says(start, sdk: OpenSdk):
    key, leaving = SigningKey("k", "ES256"), threading.Event()

    def say_nothing(handler) -> None:
        leaving.wait(60)
        give(handler, b"", 500)

    with KeyServer(say_nothing) as ours, KeyServer(key_set(key)) as theirs:
        started = start(ours.url, theirs.url)

        async def run() -> None:
            async with sdk(started.gateway_url, token=key.sign({"sub": "ann"})) as ann:
                await ann.ready()
                async with sdk(started.gateway_url, token=key.sign({"sub": "ann"})) as again:
                    await again.until("error", code=111)

        asyncio.run(run())
        leaving.set()


def test_the_path_may_name_the_issuer(start, sdk: OpenSdk):
    key = SigningKey("k", "ES256")
    issuer = {"issuer_regex": "^https://id/(?P<realm>staff|guests)$"}
    with KeyServer(key_set(key)) as ours, KeyServer(key_set(key)) as theirs:
        started = start(f"{ours.url}/{{{{realm}}}}", f"{theirs.url}/{{{{realm}}}}", **issuer)

        async def run() -> None:
            async with sdk(started.gateway_url, token=key.sign({"sub": "ann", "iss": "https://id/staff"})) as ann:
                await ann.ready()
            await eventually(lambda: ours.asked == ["/keys/staff"])
            async with sdk(started.gateway_url, token=key.sign({"sub": "ann", "iss": "https://else/staff"})) as other:
                await other.until("disconnected", code=3500)

        asyncio.run(run())
        assert theirs.asked[:1] == ours.asked == ["/keys/staff"]
