"""Observers, startup and shutdown, background work and HTTP of plugins."""

import asyncio
import threading

import msgspec
import pytest

from cpro.clock import unix_seconds
from cpro.errors import PluginError
from cpro.plugins import HttpError, hookimpl
from cpro.plugins.app import Endpoints
from cpro.testing import Harness
from tests.support.backend import Backend
from tests.support.service import limits


class Watcher:
    """A plugin with one observer, which keeps the batches; `wait` holds it up, `error` is raised."""

    def __init__(self, wait=None, error=None):
        self.wait, self.error = wait, error
        self.batches = []
        self.told = threading.Event()
        self.thread = None

    @hookimpl
    def cpro_observe(self, config):
        return self.observe

    def observe(self, batch):
        self.thread = threading.current_thread()
        if self.wait is not None:
            self.wait.wait(30)
        self.batches.append(batch)
        self.told.set()
        if self.error is not None:
            raise self.error

    @property
    def seen(self):
        return [one for batch in self.batches for one in batch]


def run(plugin, scenario, **harness):
    async def main():
        async with Harness(plugin, **harness) as cpro:
            return await scenario(cpro)

    return asyncio.run(main())


def test_observers_are_told_of_every_operation_with_what_became_of_it():
    watcher = Watcher()

    async def scenario(cpro):
        await cpro.send("publish", channel="news", client="c9")
        await cpro.send("publish", channel="news")
        await cpro.rpc("m")

    run(watcher, scenario, settings=limits(publish=(1, "1h")))
    told = [msgspec.structs.astuple(one)[:8] for one in watcher.seen]
    assert told == [
        ("proxy", "publish", "c9", "42", "news", "", "admitted", 103),
        ("proxy", "publish", "c1", "42", "news", "", "refused", 111),
        ("proxy", "rpc", "c1", "42", "", "m", "admitted", 108),
    ]
    assert all(one.duration_ns > 0 and abs(one.time - unix_seconds()) < 10 for one in watcher.seen)


def test_a_connect_is_told_with_the_user_it_established():
    watcher = Watcher()
    run(watcher, lambda cpro: cpro.send("connect"), backend=lambda event, body: {"result": {"user": "ann"}})
    assert [one.user for one in watcher.seen] == ["ann"]


def test_observers_are_told_in_batches_in_a_thread_of_their_own():
    watcher = Watcher()

    async def scenario(cpro):
        for _ in range(2500):
            await cpro.send("publish")
        await asyncio.to_thread(watcher.told.wait, 5)

    run(watcher, scenario)
    assert [len(batch) for batch in watcher.batches][:2] == [1000, 1000]
    assert len(watcher.seen) == 2500
    assert watcher.thread is not threading.main_thread()


def test_an_observer_is_told_without_waiting_for_a_full_batch():
    watcher = Watcher()

    async def scenario(cpro):
        await cpro.send("publish")
        assert await asyncio.to_thread(watcher.told.wait, 5)
        await cpro.send("publish")

    run(watcher, scenario)
    assert [len(batch) for batch in watcher.batches] == [1, 1]


def test_an_observer_that_is_slow_loses_what_is_counted_and_holds_up_nobody():
    go_on = threading.Event()
    watcher = Watcher(wait=go_on)

    async def scenario(cpro):
        for _ in range(12_000):
            await cpro.send("publish")
        assert cpro.dropped == {"tested": 2000}
        assert not watcher.batches
        go_on.set()

    run(watcher, scenario)
    assert len(watcher.seen) == 10_000


def test_an_observer_that_hangs_does_not_keep_cpro_from_stopping():
    never = threading.Event()
    run(Watcher(wait=never), lambda cpro: cpro.send("publish"))
    never.set()


def test_an_observer_that_raises_is_counted_and_told_of_the_next():
    watcher = Watcher(error=ValueError("bug"))

    async def scenario(cpro):
        for _ in range(2000):
            await cpro.send("publish")
        while len(watcher.batches) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert cpro.errors == {"tested": 2}

    run(watcher, scenario)


class Life:
    """A plugin that notes its startup and shutdown; each may be a function that is called there."""

    def __init__(self, startup=lambda app: None, shutdown=lambda app: None):
        self.startup, self.shutdown = startup, shutdown
        self.seen = []

    @hookimpl
    async def cpro_startup(self, app):
        self.seen.append("startup")
        result = self.startup(app)
        return await result if asyncio.iscoroutine(result) else result

    @hookimpl
    async def cpro_shutdown(self, app):
        self.seen.append("shutdown")
        result = self.shutdown(app)
        return await result if asyncio.iscoroutine(result) else result


def test_startup_comes_first_and_shutdown_last():
    life = Life()

    async def scenario(cpro):
        assert life.seen == ["startup"]

    run(life, scenario)
    assert life.seen == ["startup", "shutdown"]


def test_a_startup_that_raises_stops_the_start():
    with pytest.raises(PluginError, match="plugin tested: cpro_startup: ZeroDivisionError: division by zero"):
        run(Life(startup=lambda app: 1 / 0), None)


@pytest.mark.parametrize("shutdown", [lambda app: 1 / 0, lambda app: exit(), lambda app: asyncio.sleep(3600)])
def test_a_shutdown_that_fails_or_hangs_is_counted(shutdown, monkeypatch):
    monkeypatch.setattr("cpro.plugins.plugged.SHUTDOWN_S", 0.05)
    errors = []

    async def scenario(cpro):
        errors.append(cpro.errors)

    run(Life(shutdown=shutdown), scenario)
    assert errors == [{"tested": 1}]


def test_background_work_that_fails_is_counted_and_what_goes_on_is_cancelled():
    ended = []

    async def fail():
        raise OSError("away")

    async def go_on():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    def startup(app):
        app.spawn(fail())
        app.spawn(go_on())

    async def scenario(cpro):
        await asyncio.sleep(0.01)
        assert cpro.errors == {"tested": 1}

    run(Life(startup=startup), scenario)
    assert ended == [True]


def test_http_posts_over_one_connection_and_gives_any_status():
    async def main(url):
        endpoints = Endpoints()
        endpoint = endpoints.make(url, {"X-API-Key": "k", "Content-Type": "application/json"}, 5.0)
        answers = [await endpoint.post(b'{"n":1}'), await endpoint.post(b'{"n":2}')]
        await endpoints.close()
        return answers

    with Backend(lambda received: (418, b"tea")) as backend:
        assert asyncio.run(main(backend.url + "/publish")) == [(418, b"tea")] * 2
    assert [one.path for one in backend.received] == ["/centrifugo/publish"] * 2
    assert [one.json for one in backend.received] == [{"n": 1}, {"n": 2}]
    headers = {name.lower(): value for name, value in backend.received[0].headers}
    assert headers["x-api-key"] == "k"
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("answer", ["dead", "slow"])
def test_http_that_gets_no_answer_says_why(answer):
    async def main(url):
        endpoints = Endpoints()
        try:
            await endpoints.make(url, {}, 0.1).post(b"{}")
        finally:
            await endpoints.close()

    release = threading.Event()
    with Backend(lambda received: release.wait(5) or {}) as backend:
        url = "http://127.0.0.1:1/x" if answer == "dead" else backend.url
        with pytest.raises(HttpError, match={"dead": "refused", "slow": "timed out"}[answer]):
            asyncio.run(main(url))
        release.set()


@pytest.mark.parametrize(
    ("url", "headers"),
    [("ftp://x/", {}), ("http://x y/", {}), ("http://x/", {"Bad Name": "v"}), ("http://x/", {"A": "b\r\nC: d"})],
)
def test_http_to_what_is_no_url_or_with_bad_headers_is_refused_at_once(url, headers):
    def startup(app):
        app.http(url, headers, 1.0)

    async def main():
        harness = Harness(Life(startup=startup))
        harness.http = Endpoints()
        async with harness:
            pass

    with pytest.raises(PluginError, match="plugin tested: can't post to that URL"):
        asyncio.run(main())
