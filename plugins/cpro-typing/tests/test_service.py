"""The installed plugin in a real cpro: with an API that records, one that is dead, and a real Centrifugo."""

import asyncio
import time

import pytest
from tests.support.backend import Backend
from tests.support.centrifugo import Centrifugo, free_port, part_by_cpro
from tests.support.sdks import Refusal, open_sdk
from tests.support.service import REFUSED, Service, event, exchange, limits

DONE = {"result": {"data": {}}}
DEAD = "http://127.0.0.1:1/api"


def options(api_url, **more):
    return {"plugins": {"typing": {"api_url": api_url, "api_key": "k", **more}}}


def typing(channel, **fields):
    return event(method="typing", data={"channel": channel}, **fields)


def until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_publishes_through_the_api_folded_and_throttled(installed, tmp_path):
    with Backend() as api, Service(tmp_path, options(api.url), env=installed) as cpro:
        answers = [cpro.post("rpc", typing("news"))[1] for _ in range(5)]
        assert answers == [DONE] * 4 + [REFUSED]
        assert cpro.post("rpc", typing("news", user="7"))[1] == DONE
        until(lambda: len(api.received) == 2)
        assert [one.path for one in api.received] == ["/centrifugo/publish"] * 2
        assert sorted(one.json["data"]["user"] for one in api.received) == ["42", "7"]
        assert ("X-API-Key", "k") in api.received[0].headers
        assert cpro.metric('cpro_operations_total{door="proxy",op="typing",verdict="refused"}') == 1


def test_a_dead_api_delays_nobody_and_is_counted(installed, tmp_path):
    with Service(tmp_path, options(DEAD), env=installed) as cpro:
        connection = cpro.connect()
        began = time.monotonic()
        for number in range(20):
            assert exchange(connection, "/centrifugo/rpc", typing(f"c{number}"))[1] == DONE
        assert time.monotonic() - began < 2
        until(lambda: cpro.metric('cpro_plugin_errors_total{plugin="typing"}') == 20)
        assert cpro.wait_for("plugin failed")["plugin"] == "typing"
        assert cpro.stop() == 0


def test_without_a_key_it_says_so_and_leaves_the_method_alone(installed, tmp_path):
    with Service(tmp_path, env=installed) as cpro:
        assert [line["message"] for line in cpro.log] == ["does nothing until its option api_key is set", "ready"]
        assert cpro.post("rpc", typing("news"))[1]["error"]["code"] == 108


@pytest.fixture
def beside_centrifugo(installed, tmp_path):
    """A Centrifugo, and a cpro of two workers that lets everybody do everything and publishes there."""
    proxy = {"address": f"127.0.0.1:{free_port()}", "without_upstream": "allow", "connect_user_header": "X-User"}
    settings = {"workers": 2, "proxy": proxy, **limits(typing=(100, "1s"))}
    cpro = Service(tmp_path / "cpro", {**settings, **options(DEAD)}, env=installed)
    centrifugo = Centrifugo(tmp_path / "centrifugo", part_by_cpro(cpro.config, installed))
    port = centrifugo.url.split("/")[2]
    cpro.write({**settings, **options(f"http://{port}/api", api_key=Centrifugo.API_KEY)})
    with cpro, centrifugo:
        yield centrifugo.url, cpro


@pytest.mark.centrifugo
def test_another_subscriber_sees_who_is_typing(beside_centrifugo):
    url, _ = beside_centrifugo

    async def run():
        ann, bob = (open_sdk("python-json", url, headers={"X-User": user}) for user in ("ann", "bob"))
        async with ann as ann, bob as bob:
            await ann.ready()
            await bob.ready()
            await ann.subscribed("news")
            for _ in range(3):
                assert await bob.rpc("typing", {"channel": "news"}) == {}
            publication = await ann.until("publication")
            assert publication["data"] == {"type": "typing", "user": "bob"}
            with pytest.raises(Refusal) as refused:
                await bob.rpc("typing", {"channel": ""})
            assert refused.value.code == 107
            await asyncio.sleep(2.1)
            await bob.rpc("typing", {"channel": "news"})
            await ann.until("publication", count=2)
            assert len(ann.seen("publication")) == 2

    asyncio.run(run())


@pytest.mark.centrifugo
def test_what_several_workers_let_through_is_published_once(beside_centrifugo):
    url, cpro = beside_centrifugo

    async def run():
        async with open_sdk("python-json", url, headers={"X-User": "ann"}) as ann:
            await ann.ready()
            await ann.subscribed("a")
            await ann.subscribed("b")
            await asyncio.sleep(-time.time() % 2)  # to the beginning of a window
            for _ in range(20):  # each on a connection of its own, so that both workers get some
                for channel in ("a", "b"):
                    assert (await asyncio.to_thread(cpro.post, "rpc", typing(channel)))[1] == DONE
            await asyncio.sleep(0.5)
            assert [len(ann.seen("publication", channel=channel)) for channel in ("a", "b")] == [1, 1]

    asyncio.run(run())
