"""Real Centrifugo, real clients, cpro between Centrifugo and a scripted backend."""

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.backend import Backend, Received
from tests.support.centrifugo import Centrifugo, free_port, merge, part_by_cpro
from tests.support.sdks import HTTP_KINDS, KINDS, Sdk, open_sdk, transport_of, why_missing
from tests.support.service import Service
from tests.support.sockets import KEY

GATEWAY = {"gateway": {"enabled": True}}
HTTP_TRANSPORTS = {"sse": {"enabled": True}, "http_stream": {"enabled": True}}


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


def without_proxies(config: dict) -> None:
    """A Centrifugo that asks nobody, at every transport: who has a token may do everything."""
    everything = {
        "allow_subscribe_for_client": True,
        "allow_publish_for_client": True,
        "allow_history_for_client": True,
        "allow_presence_for_client": True,
        "presence": True,
        "history_size": 10,
        "history_ttl": "60s",
    }
    config.clear()
    config.update({"client": {"token": {"hmac_secret_key": KEY}}, "channel": {"without_namespace": everything}})
    config.update(HTTP_TRANSPORTS)


def start_alone(
    stack: StartStack, settings: dict, *, change: Callable[[dict], None] = without_proxies, **gateway: object
) -> Stack:
    """The gateway, with these settings of its own, in front of a Centrifugo that knows nothing of cpro."""
    return stack({**settings, "gateway": {"enabled": True, **gateway}}, answer=None, change=change)


@dataclass(frozen=True)
class OpenSdk:
    """Opens clients of one kind: `async with sdk(url, data=…, headers=…) as client`."""

    kind: str

    def __call__(self, url: str, **options: object) -> AbstractAsyncContextManager[Sdk]:
        return open_sdk(self.kind, url, **options)

    @property
    def transport(self) -> str:
        return transport_of(self.kind)


def opener(request: pytest.FixtureRequest) -> OpenSdk:
    if reason := why_missing(request.param):
        pytest.skip(reason)
    return OpenSdk(request.param)


sdk = pytest.fixture(opener, params=KINDS, name="sdk")
http_sdk = pytest.fixture(opener, params=HTTP_KINDS, name="http_sdk")
any_sdk = pytest.fixture(opener, params=(*KINDS, *HTTP_KINDS), name="any_sdk")


async def eventually(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Wait for something that tells nobody when it happens; `condition` may block."""
    until = time.monotonic() + timeout_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < until, "it did not happen"
        await asyncio.sleep(0.05)
