"""What SIGHUP changes of a running gateway, without an open connection noticing."""

import asyncio
import http.client

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.centrifugo.conftest import OpenSdk, StartStack, eventually, start_alone
from tests.support.keys import KeyServer, SigningKey, key_set
from tests.support.sockets import token_of

pytestmark = pytest.mark.centrifugo


def health(address: str) -> int:
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_reload_changes_what_comes_next_and_closes_nothing(stack: StartStack, sdk: OpenSdk):
    started = start_alone(stack, {})
    cpro = started.service
    settings = cpro.settings
    assert health(cpro.gateway) == 404

    async def run(keys: KeyServer) -> None:
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            more = {
                "compression": True,
                "pass_unknown": True,
                "max_connections_per_ip": 2,
                "token": {"jwks_public_endpoint": keys.url},
            }
            await asyncio.to_thread(cpro.reload, {**settings, "gateway": {**settings["gateway"], **more}})
            assert await asyncio.to_thread(health, cpro.gateway) == 200
            async with connect(started.gateway_url) as second:
                assert [one.name for one in second.protocol.extensions] == ["permessage-deflate"]
                with pytest.raises(InvalidStatus) as refused:
                    await connect(started.gateway_url)
                assert refused.value.response.status_code == 503
            await ann.publish("news", 1)
            await ann.until("publication")
            assert not ann.seen("disconnected")
            await eventually(lambda: keys.asked == ["/keys"])

    with KeyServer(key_set(SigningKey("k", "ES256"))) as keys:
        asyncio.run(run(keys))
