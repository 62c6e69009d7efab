"""The same session of an unmodified SDK over SSE and HTTP-stream, straight to Centrifugo and through the gateway."""

import asyncio

import pytest

from tests.e2e.centrifugo.conftest import GATEWAY, HTTP_TRANSPORTS, OpenSdk, StartStack
from tests.support.centrifugo import merge
from tests.support.http_wiretap import HttpWiretap
from tests.support.scenario import CENTRIFUGO, WAYS, application, play, transcript

pytestmark = pytest.mark.centrifugo


def without_order(session: dict) -> dict:
    """Posts that are under way together come in any order, and so do replies; ids are in the order of the client."""
    del session["order of replies"]
    session["said"].sort(key=lambda one: one["id"])
    return session


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["token", "proxy"])
def test_a_session_looks_the_same_with_and_without_the_gateway(stack: StartStack, http_sdk: OpenSdk, way: str):
    started = stack(GATEWAY, answer=application, centrifugo=merge(CENTRIFUGO, HTTP_TRANSPORTS))

    async def show(url: str, tag: str) -> list[dict]:
        async with HttpWiretap(url) as tap:
            await play(http_sdk.kind, tap, started.centrifugo.api, WAYS[way], tag)
            return [without_order(one) for one in transcript(tap.takes, tag)]

    straight = asyncio.run(show(started.url, "one"))
    through = asyncio.run(show(started.gateway_url, "two"))
    assert len(straight) == 2
    assert straight[0]["said"]
    assert len(straight[1]["pushes"]) > 2
    assert through == straight
