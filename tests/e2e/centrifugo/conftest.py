"""Real Centrifugo, real clients, cpro between Centrifugo and a scripted backend."""

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.support.backend import Backend, Received
from tests.support.centrifugo import Centrifugo, free_port, merge, part_by_cpro
from tests.support.sdks import KINDS, Sdk, open_sdk, why_missing
from tests.support.service import Service


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("centrifugo") and shutil.which("centrifugo") is None:
        pytest.skip("no centrifugo on PATH")


def backend_answer(received: Received) -> object:
    """An application that knows everybody by the name they give and allows everything."""
    if received.path.endswith("/connect"):
        return {"result": {"user": received.json.get("data", {}).get("name", "nobody")}}
    return {"result": {}}


@dataclass
class Stack:
    """What a test has in front of it."""

    centrifugo: Centrifugo
    service: Service
    backend: Backend

    @property
    def url(self) -> str:
        return self.centrifugo.url

    @property
    def gateway_url(self) -> str:
        return f"ws://{self.service.gateway}/connection/websocket"

    def operations(self, event: str, verdict: str, door: str = "proxy") -> float:
        """How many operations cpro has finished with this verdict."""
        return self.service.metric(f'cpro_operations_total{{door="{door}",op="{event}",verdict="{verdict}"}}')

    def received(self, event: str) -> list[Received]:
        """What reached the backend for this event."""
        return [one for one in self.backend.received if one.path.endswith(f"/{event}")]


StartStack = Callable[..., Stack]


def patient(config: dict) -> dict:
    """With time for answers of a machine that stands still now and then: none of these tests is about it."""
    return {
        key: "10s" if key == "timeout" else patient(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }


@pytest.fixture
def stack(service: Callable[..., Service], tmp_path: Path):
    """Start all three: `stack(settings, answer=…, centrifugo=…)`.

    Without an `answer` cpro has no upstream. `centrifugo` is laid over what `cpro centrifugoconfig` prints.
    """
    with ExitStack() as running:

        def start(
            settings: dict | None = None,
            *,
            answer: Callable[[Received], object] | None = backend_answer,
            centrifugo: dict | None = None,
            change: Callable[[dict], None] = lambda config: None,
        ) -> Stack:
            backend = running.enter_context(Backend(answer or backend_answer))
            port = free_port()
            proxy = {"address": f"127.0.0.1:{free_port()}"}
            gateway = {"address": "127.0.0.1:0", "centrifugo": [f"http://127.0.0.1:{port}"]}
            if answer is not None:
                proxy["upstream"] = {"endpoint": backend.url}
            cpro = service(merge({"proxy": proxy, "gateway": gateway}, settings or {}))
            config = merge(patient(part_by_cpro(cpro.config)), centrifugo or {})
            change(config)
            return Stack(running.enter_context(Centrifugo(tmp_path / "centrifugo", config, port)), cpro, backend)

        yield start


OpenSdk = Callable[..., AbstractAsyncContextManager[Sdk]]


@pytest.fixture(params=KINDS)
def sdk(request: pytest.FixtureRequest) -> OpenSdk:
    """Opens clients of one kind after the other: `async with sdk(url, data=…, headers=…) as client`."""
    if reason := why_missing(request.param):
        pytest.skip(reason)
    return partial(open_sdk, request.param)


async def eventually(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Wait for something that tells nobody when it happens; `condition` may block."""
    until = time.monotonic() + timeout_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < until, "it did not happen"
        await asyncio.sleep(0.05)
