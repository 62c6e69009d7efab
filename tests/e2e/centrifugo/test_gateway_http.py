"""SSE and HTTP-stream through the gateway: as without it, but for the refusals that are deserved."""

import asyncio
from functools import partial

import jwt
import pytest

from tests.e2e.centrifugo.conftest import OpenSdk, Stack, StartStack, eventually
from tests.e2e.centrifugo.test_gateway import GATEWAY, OPEN, token_of
from tests.support.analytics_service import analytics, ask
from tests.support.processes import eventually as eventually_now
from tests.support.sdks import HTTP_KINDS, Refusal, open_sdk, why_missing
from tests.support.service import limits

pytestmark = pytest.mark.centrifugo

KEY = "a key that only the application and Centrifugo have"
TRANSPORTS = {"sse": {"enabled": True}, "http_stream": {"enabled": True}}


@pytest.fixture(params=HTTP_KINDS)
def sdk(request: pytest.FixtureRequest) -> OpenSdk:
    if reason := why_missing(request.param):
        pytest.skip(reason)
    opener = partial(open_sdk, request.param)
    opener.transport = request.param.split("-")[1]
    return opener


def without_proxies(config: dict) -> None:
    config.clear()
    config.update({"client": {"token": {"hmac_secret_key": KEY}}, "channel": {"without_namespace": OPEN}, **TRANSPORTS})


def start_alone(stack: StartStack, settings: dict) -> Stack:
    return stack({**settings, **GATEWAY}, answer=None, change=without_proxies)


def test_commands_that_proxies_never_hear_of_are_refused_over_their_limits(stack: StartStack, sdk: OpenSdk):
    started = start_alone(stack, limits(publish=(2, "1m"), history=(2, "1m"), presence=(1, "1m")))

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", {"n": 1})
            await ann.publish("news", {"n": 2})
            await ann.until("publication", count=2)
            assert sorted(one["n"] for one in await ann.history("news", 5)) == [1, 2]
            await ann.history("news", 5)
            assert await ann.presence("news") == ["ann"]
            for refused in (ann.publish("news", 3), ann.history("news", 5), ann.presence("news")):
                with pytest.raises(Refusal) as refusal:
                    await refused
                assert refusal.value.error == {"code": 111, "message": "too many requests", "temporary": True}
            await ann.unsubscribe("news")
            assert started.service.metric(f'cpro_gateway_connections{{transport="{sdk.transport}"}}') == 1

    asyncio.run(run())
    assert len(started.centrifugo.api("history", {"channel": "news", "limit": 10})["publications"]) == 2
    for kind, admitted, refused in [("connect", 1, 0), ("publish", 2, 1), ("history", 2, 1), ("presence", 1, 1)]:
        assert started.operations(kind, "admitted", door="gateway") == admitted
        assert started.operations(kind, "refused", door="gateway") == refused


def test_the_connects_of_a_user_are_limited_by_the_token_that_centrifugo_accepts(stack: StartStack, sdk: OpenSdk):
    started = start_alone(stack, limits(connect=(1, "1h")))

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as first:
            await first.ready()
            async with sdk(started.gateway_url, token=token_of("ann")) as second:
                await second.until("error", code=111)
                assert not second.seen("connected")
            async with sdk(started.gateway_url, token=token_of("bob")) as bob:
                await bob.ready()

    asyncio.run(run())


def test_a_connect_over_its_limit_never_reaches_centrifugo_where_keys_are_known(stack: StartStack, sdk: OpenSdk):
    gateway = {"gateway": {"enabled": True, "token": {"hmac_secret_key": KEY}}}
    started = stack({**limits(connect=(1, "1h")), **gateway}, answer=None, change=without_proxies)

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as first:
            await first.ready()
            async with sdk(started.gateway_url, token=token_of("ann")) as second:
                await second.until("error", code=111)
                assert not second.seen("connected")

    asyncio.run(run())


def test_both_doors_together_charge_each_operation_once(stack: StartStack, sdk: OpenSdk):
    settings = {**limits(publish=(2, "1h"), rpc=(1, "1h")), **GATEWAY}
    started = stack(settings, centrifugo=TRANSPORTS)

    async def run():
        async with sdk(started.gateway_url, data={"name": "ann"}) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", 1)
            await ann.publish("news", 2)
            await ann.rpc("anything", {})
            for refused in (ann.publish("news", 3), ann.rpc("anything", {})):
                with pytest.raises(Refusal):
                    await refused

    asyncio.run(run())
    assert [len(started.received(event)) for event in ("publish", "rpc")] == [2, 1]
    assert started.received("publish")[0].json["user"] == "ann"
    assert started.received("publish")[0].json["transport"] == sdk.transport
    assert started.operations("publish", "admitted") == 0, "the proxy door only handles"


def test_a_client_that_vanishes_is_gone_from_centrifugo_at_once(stack: StartStack, sdk: OpenSdk):
    started = start_alone(stack, {})

    def present() -> int:
        return started.centrifugo.api("presence_stats", {"channel": "news"})["num_clients"]

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            assert present() == 1
        await eventually(lambda: present() == 0)
        gauge = f'cpro_gateway_connections{{transport="{sdk.transport}"}}'
        await eventually(lambda: started.service.metric(gauge) == 0)

    asyncio.run(run())


def test_an_invalid_token_and_a_stop_end_a_stream_with_their_codes(stack: StartStack, sdk: OpenSdk):
    started = start_alone(stack, {})
    forged = jwt.encode({"sub": "ann"}, "a key of the attacker's, who has no other", algorithm="HS256")

    async def run():
        async with sdk(started.gateway_url, token=forged) as mallory:
            await mallory.until("disconnected", code=3500)
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            stopping = asyncio.create_task(asyncio.to_thread(started.service.stop))
            await ann.until("connecting", code=3001)
            assert await stopping == 0

    asyncio.run(run())


def test_too_many_errors_end_a_stream(stack: StartStack, sdk: OpenSdk):
    settings = limits(history=(1, "1h"))
    errors = {"enabled": True, "buckets": [{"interval": "1h", "rate": 2}]}
    settings["client"]["rate_limit"]["client_error"] = {"enabled": True, "total": errors}
    started = start_alone(stack, settings)

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.history("news", 1)
            for _ in range(3):
                with pytest.raises(Refusal):
                    await ann.history("news", 1)
            await ann.until("disconnected", code=3509)

    asyncio.run(run())


def test_what_passes_by_a_stream_is_on_record_by_its_name(stack: StartStack, sdk: OpenSdk):
    tables = ("operations", "connections", "subscriptions", "publications")
    started = start_alone(stack, {**limits(history=(1, "1m")), **analytics(*tables), "user_status": {"enabled": True}})

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", {"n": 1})
            assert await ann.rpc("update_user_status", {}) == {}

    asyncio.run(run())
    stored = 'cpro_sink_rows_total{sink="clickhouse",table="operations"}'
    assert eventually_now(lambda: started.service.metric(stored) == 6, 15)
    found = ask(started.service, "SELECT op, user FROM centrifugo.operations ORDER BY op")
    assert [row["op"] for row in found] == ["connect", "connecting", "disconnect", "publish", "rpc", "subscribe"]
    assert {row["user"] for row in found} == {"ann"}
    (connection,) = ask(started.service, "SELECT user, transport FROM centrifugo.connections")
    assert connection == {"user": "ann", "transport": sdk.transport}
    assert ask(started.service, "SELECT channel FROM centrifugo.subscriptions") == [{"channel": "news"}]
    assert len(ask(started.service, "SELECT uid FROM centrifugo.publications")) == 1


def test_a_stream_too_many_is_turned_away_until_one_leaves(stack: StartStack, sdk: OpenSdk):
    gateway = {"gateway": {"enabled": True, "max_connections": 1}}
    started = stack(gateway, answer=None, change=without_proxies)

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            async with sdk(started.gateway_url, token=token_of("bob")) as bob:
                await bob.until("error", count=2)
                assert not bob.seen("connected")
        async with sdk(started.gateway_url, token=token_of("bob")) as bob:
            await bob.ready()

    asyncio.run(run())
