"""Behind the gateway everything is as without it, but for the refusals that are deserved."""

import asyncio

import pytest
from centrifuge.exceptions import CentrifugeError

from tests.e2e.centrifugo.conftest import (
    GATEWAY,
    HTTP_TRANSPORTS,
    OpenSdk,
    Stack,
    StartStack,
    eventually,
    start_alone,
    without_proxies,
)
from tests.support.analytics_service import analytics, ask
from tests.support.processes import eventually as eventually_now
from tests.support.sdks import Refusal
from tests.support.service import exchange, limits
from tests.support.sockets import KEY, token_of

pytestmark = pytest.mark.centrifugo


def test_commands_that_proxies_never_hear_of_are_refused_over_their_limits(stack: StartStack, any_sdk: OpenSdk):
    started = start_alone(
        stack, limits(publish=(2, "1m"), history=(2, "1m"), presence=(1, "1m"), presence_stats=(1, "1m"))
    )

    async def run():
        async with any_sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", {"n": 1})
            await ann.publish("news", {"n": 2})
            await ann.until("publication", count=2)
            assert await ann.history("news", 5) == [{"n": 1}, {"n": 2}]
            assert await ann.history("news", 5) == [{"n": 1}, {"n": 2}]
            assert await ann.presence("news") == ["ann"]
            assert await ann.presence_stats("news") == 1
            looks = (ann.history("news", 5), ann.presence("news"), ann.presence_stats("news"))
            for refused in (ann.publish("news", 3), *looks):
                with pytest.raises(Refusal) as refusal:
                    await refused
                assert refusal.value.error == {"code": 111, "message": "too many requests", "temporary": True}
            await ann.unsubscribe("news")
            assert started.service.metric(f'cpro_gateway_connections{{transport="{any_sdk.transport}"}}') == 1

    asyncio.run(run())
    assert len(started.centrifugo.api("history", {"channel": "news", "limit": 10})["publications"]) == 2
    for kind, admitted, refused in [
        ("connect", 1, 0),
        ("subscribe", 1, 0),
        ("publish", 2, 1),
        ("history", 2, 1),
        ("presence", 1, 1),
    ]:
        assert started.operations(kind, "admitted", door="gateway") == admitted
        assert started.operations(kind, "refused", door="gateway") == refused


def test_a_refused_publish_reaches_nobody(stack: StartStack, sdk: OpenSdk):
    started = start_alone(stack, limits(publish=(3, "1m")))

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            for number in range(3):
                await ann.publish("news", number)
            for number in range(3, 6):
                with pytest.raises(Refusal):
                    await ann.publish("news", number)
            await ann.until("publication", count=3)
            assert [one["data"] for one in ann.seen("publication")] == [0, 1, 2]

    asyncio.run(run())
    assert len(started.centrifugo.api("history", {"channel": "news", "limit": 10})["publications"]) == 3


@pytest.mark.parametrize("token", [{}, {"hmac_secret_key": KEY}], ids=["keys unknown", "keys known"])
def test_the_connects_of_a_user_are_limited_by_the_token_that_centrifugo_accepts(
    stack: StartStack, any_sdk: OpenSdk, token: dict
):
    started = start_alone(stack, limits(connect=(1, "1h")), token=token)

    async def run():
        async with any_sdk(started.gateway_url, token=token_of("ann")) as first:
            await first.ready()
            async with any_sdk(started.gateway_url, token=token_of("ann")) as second:
                await second.until("error", code=111)
                assert not second.seen("connected")
            async with any_sdk(started.gateway_url, token=token_of("bob")) as bob:
                await bob.ready()

    asyncio.run(run())
    assert len(started.centrifugo.api("presence", {"channel": "news"})["presence"]) == 0


def test_a_forged_token_spends_nothing_of_the_user_it_names(stack: StartStack, any_sdk: OpenSdk):
    started = start_alone(stack, limits(connect=(1, "1h")))
    forged = token_of("ann", "a key of the attacker's, who has no other")

    async def run():
        async with any_sdk(started.gateway_url, token=forged) as mallory:
            await mallory.until("disconnected", code=3500)
        async with any_sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()

    asyncio.run(run())


def test_a_stop_ends_a_connection_with_its_code(stack: StartStack, any_sdk: OpenSdk):
    started = start_alone(stack, {})

    async def run():
        async with any_sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            stopping = asyncio.create_task(asyncio.to_thread(started.service.stop))
            await ann.until("connecting", code=3001)
            assert await stopping == 0

    asyncio.run(run())


def test_both_doors_together_charge_each_operation_once(stack: StartStack, any_sdk: OpenSdk):
    settings = {**limits(connect=(1, "1h"), publish=(2, "1h"), rpc=(1, "1h")), **GATEWAY}
    started = stack(settings, centrifugo=HTTP_TRANSPORTS)

    async def run():
        async with any_sdk(started.gateway_url, data={"name": "ann"}) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", 1)
            await ann.publish("news", 2)
            await ann.rpc("anything", {})
            for refused in (ann.publish("news", 3), ann.rpc("anything", {})):
                with pytest.raises(Refusal):
                    await refused
        async with any_sdk(started.gateway_url, data={"name": "ann"}) as again:
            await again.until("error", code=111)
        async with any_sdk(started.gateway_url, data={"name": "bob"}) as bob:
            await bob.ready()

    asyncio.run(run())
    assert [len(started.received(event)) for event in ("publish", "rpc")] == [2, 1]
    assert started.received("publish")[0].json["user"] == "ann"
    assert started.received("publish")[0].json["transport"] == any_sdk.transport
    for kind, admitted, refused in [("publish", 2, 1), ("rpc", 1, 1), ("subscribe", 1, 0)]:
        assert started.operations(kind, "admitted", door="gateway") == admitted
        assert started.operations(kind, "refused", door="gateway") == refused
        assert started.operations(kind, "admitted") == 0, "the proxy door only handles"


def test_a_client_that_leaves_is_gone_from_centrifugo_at_once(stack: StartStack, any_sdk: OpenSdk):
    started = start_alone(stack, {})

    def present() -> int:
        return started.centrifugo.api("presence_stats", {"channel": "news"})["num_clients"]

    async def run():
        async with any_sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            assert present() == 1
        await eventually(lambda: present() == 0, timeout_s=3.0 if any_sdk.transport == "websocket" else 15.0)
        gauge = f'cpro_gateway_connections{{transport="{any_sdk.transport}"}}'
        await eventually(lambda: started.service.metric(gauge) == 0)

    asyncio.run(run())


def test_every_command_has_its_row_and_so_have_connections_and_disconnects(stack: StartStack, any_sdk: OpenSdk):
    tables = ("operations", "connections", "subscriptions", "publications")
    settings = {**limits(history=(1, "1m")), **analytics(*tables), "node": {"name": "n1"}}
    settings["user_status"] = {"enabled": True}
    started = start_alone(stack, settings)

    async def run():
        async with any_sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", {"n": 1})
            await ann.history("news", 5)
            with pytest.raises(Refusal):
                await ann.history("news", 5)
            assert await ann.rpc("update_user_status", {}) == {}

    asyncio.run(run())
    rows = "SELECT user, op, channel, error, node FROM centrifugo.operations ORDER BY op, error"
    wanted = [
        ("connect", "", 0),
        ("connecting", "", 0),
        ("disconnect", "", 0),
        ("history", "news", 0),
        ("history", "news", 111),
        ("publish", "news", 0),
        ("rpc", "", 0),
        ("subscribe", "news", 0),
    ]
    cpro = started.service
    stored = 'cpro_sink_rows_total{sink="clickhouse",table="operations"}'
    assert eventually_now(lambda: cpro.metric(stored) == len(wanted), 15)
    found = ask(cpro, rows)
    assert [(row["op"], row["channel"], row["error"]) for row in found] == wanted
    assert {(row["user"], row["node"]) for row in found} == {("ann", "n1")}
    (connection,) = ask(cpro, "SELECT user, transport, protocol FROM centrifugo.connections")
    assert connection["user"] == "ann"
    assert connection["transport"] == any_sdk.transport
    assert ask(cpro, "SELECT user, channel FROM centrifugo.subscriptions") == [{"user": "ann", "channel": "news"}]
    (publication,) = ask(cpro, "SELECT user, channel, source, size FROM centrifugo.publications")
    assert publication["source"] == "client"
    assert publication["size"] in (len('{"n":1}'), len('{"n": 1}'))


def test_what_is_open_is_recorded_again_in_every_snapshot(stack: StartStack, sdk: OpenSdk):
    started = start_alone(stack, analytics("connections", "subscriptions"), snapshot_interval="1s")

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            for table in ("connections", "subscriptions"):
                stored = f'cpro_sink_rows_total{{sink="clickhouse",table="{table}"}}'
                await eventually(lambda stored=stored: started.service.metric(stored) >= 3, timeout_s=20.0)

    asyncio.run(run())


def test_snapshots_say_how_long_a_pong_takes_and_when_the_connection_was_made(stack: StartStack, sdk: OpenSdk):
    def change(config: dict) -> None:
        without_proxies(config)
        config["client"] |= {"ping_interval": "2s", "pong_timeout": "1900ms"}

    started = start_alone(stack, analytics("connections"), change=change, snapshot_interval="1s")
    rows = "SELECT latency, connected_at, time FROM centrifugo.connections ORDER BY time"

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await eventually(lambda: any(int(row["latency"]) > 0 for row in ask(started.service, rows)), timeout_s=30.0)

    asyncio.run(run())
    found = ask(started.service, rows)
    assert int(found[0]["latency"]) == 0, "it has just been made"
    assert all(0 <= int(row["latency"]) < 2_000_000_000 for row in found)
    assert len({row["connected_at"] for row in found}) == 1
    assert found[-1]["time"] > found[-1]["connected_at"]


def test_a_user_is_online_while_connected_and_active_by_its_own_call(stack: StartStack, sdk: OpenSdk):
    settings = {"user_status": {"enabled": True}, "http_api": {"key": "k"}}
    started = start_alone(stack, settings)

    async def run():
        async with sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await eventually(lambda: "online" in status_of(started, "ann"))
            assert "active" not in status_of(started, "ann")
            assert await ann.rpc("update_user_status", {}) == {}
            await eventually(lambda: "active" in status_of(started, "ann"))

    asyncio.run(run())


def status_of(started: Stack, user: str) -> dict:
    connection = started.service.connect(started.service.api)
    body = {"users": [user]}
    _, answer = exchange(connection, "/api/get_user_status", body, {"X-API-Key": "k"})
    connection.close()
    return answer["result"]["statuses"][0]


def test_a_connection_too_many_is_turned_away_until_one_leaves(stack: StartStack, any_sdk: OpenSdk):
    started = start_alone(stack, {}, max_connections=1)

    async def run():
        async with any_sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            assert started.service.metric(f'cpro_gateway_connections{{transport="{any_sdk.transport}"}}') == 1
            async with any_sdk(started.gateway_url, token=token_of("bob")) as bob:
                await bob.until("error", count=2)
                assert not bob.seen("connected")
        async with any_sdk(started.gateway_url, token=token_of("bob")) as bob:
            await bob.ready()

    asyncio.run(run())


def test_too_many_errors_end_a_connection(stack: StartStack, any_sdk: OpenSdk):
    settings = limits(history=(1, "1h"))
    errors = {"enabled": True, "buckets": [{"interval": "1h", "rate": 3}]}
    settings["client"]["rate_limit"]["client_error"] = {"enabled": True, "total": errors}
    started = start_alone(stack, settings)

    async def run():
        async with any_sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.history("news", 1)
            for _ in range(3):
                with pytest.raises(Refusal):
                    await ann.history("news", 1)
            with pytest.raises((Refusal, CentrifugeError)):
                await ann.history("news", 1)
            await ann.until("disconnected", code=3509)

    asyncio.run(run())
