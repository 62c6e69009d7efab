"""Real clients through a real Centrifugo: the rows say what they did."""

import asyncio

import pytest

from tests.e2e.centrifugo.conftest import OpenSdk, StartStack, backend_answer, eventually
from tests.support.backend import Received
from tests.support.rows import analytics, rows_of
from tests.support.sdks import Refusal, open_sdk
from tests.support.service import limits

pytestmark = pytest.mark.centrifugo

ANALYTICS = analytics(connections={"http_headers": ["X-Tests", "User-Agent"]})


def answer(received: Received) -> object:
    if received.path.endswith("/connect"):
        return {"result": {"user": received.json["data"]["name"], "channels": ["inbox"]}}
    return backend_answer(received)


def test_what_clients_do_is_in_the_rows(stack: StartStack, sdk: OpenSdk):
    blocked = limits(rpc=(1, "1h"))
    started = stack({**ANALYTICS, **blocked}, answer=answer)

    async def run():
        async with sdk(started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", {"text": "hi"})
            await ann.until("publication")
            await ann.rpc("add", [1])
            with pytest.raises(Refusal):
                await ann.rpc("add", [1])

    asyncio.run(run())
    rows = rows_of(started.service)
    assert [(row["op"], row["user"], row["channel"], row["method"], row["error"]) for row in rows["operations"]] == [
        ("connect", "ann", "", "", 0),
        ("subscribe", "ann", "news", "", 0),
        ("publish", "ann", "news", "", 0),
        ("rpc", "ann", "", "add", 0),
        ("rpc", "ann", "", "add", 111),
    ]
    (connection,) = rows["connections"]
    asked = started.received("connect")[0].json
    assert {name: connection[name] for name in ("client", "user", "transport", "protocol", "name", "version")} == {
        "client": asked["client"],
        "user": "ann",
        "transport": "websocket",
        "protocol": asked["protocol"],
        "name": asked.get("name", ""),
        "version": asked.get("version", ""),
    }
    assert len(connection["client"]) == 36
    assert [(row["client"], row["channel"]) for row in rows["subscriptions"]] == [
        (asked["client"], "inbox"),
        (asked["client"], "news"),
    ]
    (publication,) = rows["publications"]
    assert (publication["channel"], publication["user"], publication["source"]) == ("news", "ann", "client")
    assert publication["size"] in (len('{"text":"hi"}'), len('{"text": "hi"}'))
    assert {row["client"] for table in rows.values() for row in table} == {asked["client"]}


def test_exported_headers_are_those_of_the_client_and_not_centrifugos(stack: StartStack):
    started = stack(ANALYTICS, answer=answer)

    async def run():
        headers = {"X-Tests": "yes", "User-Agent": "tests/1", "Authorization": "hush"}
        async with open_sdk("python-json", started.url, data={"name": "ann"}, headers=headers) as ann:
            await ann.ready()
            await eventually(lambda: bool(rows_of(started.service)["connections"]))

    asyncio.run(run())
    (connection,) = rows_of(started.service)["connections"]
    assert connection["headers"] == {"X-Tests": ["yes"], "User-Agent": ["tests/1"]}
