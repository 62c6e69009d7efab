"""Fakes for authors of plugins: `operation` to call a handler with, `Harness` for what a client would get, and
`batch` and `SinkHarness` for sinks.

The harness is cpro's own pipeline, with real limits on a bucket table in a temporary folder; only the network is not
there, the clock of the limits stands still until it is told, and HTTP that the plugin does is recorded.
"""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from cpro._fast.buckets import BucketTable
from cpro._fast.http1 import Request, RequestParser
from cpro.clock import boot_ns
from cpro.config.load import load
from cpro.config.model import EVENTS
from cpro.doors.answers import read_answer, read_connect_answer, user_of
from cpro.doors.proxy import ProxyDoor
from cpro.extension import HttpEndpoint, PluginOperation
from cpro.limits.gate import Gate
from cpro.limits.rules import compile_rules
from cpro.operation import Operation, Reply, Verdict
from cpro.pipeline import Handle, Respond
from cpro.plugins.handle import widen
from cpro.plugins.load import Plugin, collect
from cpro.plugins.plugged import Plugged
from cpro.sinktesting import SinkHarness, batch

__all__ = ["Backend", "Clock", "FakeHttp", "Harness", "SinkHarness", "batch", "event_body", "operation"]

Backend = Callable[[str, dict[str, Any]], object]
"""Stands for the application: gets an event and its body, returns the answer's JSON."""


class Clock:
    """The time that limits and `operation.started_ns` go by; a connect alone is charged by the real one."""

    def __init__(self) -> None:
        self.now_ns = boot_ns()

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class FakeHttp:
    """What a plugin posts by `app.http`: recorded, and answered with `answer`, or with the error put there instead."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], Any]] = []
        """URL, headers and decoded JSON of each."""
        self.answer: tuple[int, bytes] | Exception = (200, b"{}")

    def make(self, url: str, headers: Mapping[str, str], timeout_s: float) -> HttpEndpoint:
        return _FakeEndpoint(self, url, dict(headers))


class _FakeEndpoint:
    def __init__(self, http: FakeHttp, url: str, headers: dict[str, str]) -> None:
        self._http = http
        self._url = url
        self._headers = headers

    async def post(self, body: bytes) -> tuple[int, bytes]:
        self._http.posts.append((self._url, self._headers, json.loads(body)))
        await asyncio.sleep(0)
        if isinstance(self._http.answer, Exception):
            raise self._http.answer
        return self._http.answer


def operation(
    event: str = "rpc",
    *,
    kind: str = "",
    headers: Mapping[str, str] | None = None,
    **fields: Any,  # noqa: ANN401
) -> PluginOperation:
    """An operation as a plugin gets it, from fields of Centrifugo's event: `operation(method="m", data={"a": 1})`."""
    body = event_body(event, fields)
    plain = Operation(
        event, body["client"], body.get("user", ""), body.get("channel", ""), body.get("method", ""), "", boot_ns()
    )
    return widen(plain, kind or event, _request(f"/{event}", body, headers or {}))


def event_body(event: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """An event's body as Centrifugo sends it, with what every event has filled in."""
    common = {"client": "c1", "transport": "websocket", "protocol": "json", "encoding": "json"}
    user = {} if event == "connect" else {"user": "42"}
    return {**common, **user, **fields}


class Harness:
    """cpro with one plugin. Use as an async context manager.

    `settings` are cpro's, as in a file (`{"client": {"rate_limit": …}}`), `options` the plugin's own. With a `backend`
    operations that the plugin passes on, and all others, go there.
    """

    def __init__(
        self,
        plugin: object,
        *,
        name: str = "tested",
        options: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        backend: Backend | None = None,
    ) -> None:
        """Raises PluginError where `cpro serve` would refuse to start."""
        self._collected = collect([Plugin(name, plugin)], {name: dict(options or {})})
        self._given = {**(settings or {}), "plugins": {name: dict(options or {})}}
        self._name = name
        self._backend = backend
        self.clock = Clock()
        self.http = FakeHttp()
        self.verdicts: Counter[tuple[str, str]] = Counter()
        """Finished operations by name and verdict, as `cpro_operations_total` counts them."""
        self.errors: Counter[str] = Counter()
        """By plugin, as `cpro_plugin_errors_total` counts them; `dropped` as `cpro_plugin_dropped_total`."""
        self.dropped: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as resources:
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="cpro-testing-")))
            file = folder / "cpro.json"
            file.write_text(json.dumps(self._given))
            operations = self._collected.operation_names
            self.settings = load(str(file), {}, operations=operations, plugins=[self._name]).settings
            table = BucketTable.create_or_open(str(folder / "table"), 10_000, bytes(16), self.clock.now_ns)
            resources.callback(table.close)
            gate = self._gate(table)
            plugged = self._plug(gate)
            resources.push_async_callback(plugged.stop)
            await plugged.start(self.settings)
            self._open_door(gate, plugged)
            self._resources = resources.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    def _gate(self, table: BucketTable) -> Gate:
        gate = Gate(table, lambda code: None)
        limits, names = self.settings.client.rate_limit, (self.settings.channel, self.settings.rpc)
        gate.configure(limits, compile_rules(limits, *names, extra=self._collected.additions))
        return gate

    def _plug(self, gate: Gate) -> Plugged:
        return Plugged(
            self._collected,
            gate.charge,
            gate.charge_scoped,
            lambda plugin: self.errors.update([plugin]),
            lambda plugin, operations: self.dropped.update({plugin: operations}),
            self.http.make,
        )

    def _open_door(self, gate: Gate, plugged: Plugged) -> None:
        self._plugged = plugged
        self._door = ProxyDoor(gate.charge, self._recorder)
        forwards = {} if self._backend is None else {event: _forward(event, self._backend) for event in EVENTS}
        added = plugged.added(self.settings)
        self._door.configure(self.settings.proxy, forwards, user_of, by_address=gate.wants_address, added=added)

    async def rpc(self, method: str, data: object = None, **fields: Any) -> Any:  # noqa: ANN401
        """What the client's RPC is answered: `send` with a method."""
        return await self.send("rpc", method=method, data=data, **fields)

    async def send(self, event: str, *, headers: Mapping[str, str] | None = None, **fields: Any) -> Any:  # noqa: ANN401
        """The JSON of the answer to one of Centrifugo's events; where the status isn't 200, the status."""
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        request = _request(self.settings.proxy.prefix + "/" + event, event_body(event, fields), headers or {})
        reply = self._door(request, cast(Any, _Connection(answered)), self.clock.now_ns)
        if reply is None:
            reply = await answered
        return msgspec.json.decode(reply.body) if reply.status == 200 else reply.status

    async def idle(self, timeout_s: float = 5.0) -> None:
        """Wait until nothing runs in the background."""
        await self._plugged.idle(timeout_s)

    def _recorder(self, kind: str) -> Callable[[Verdict, int], None]:
        return lambda verdict, duration_ns: self.verdicts.update([(kind, verdict.name.lower())])


class _Connection:
    """In the place of a connection of the HTTP server."""

    def __init__(self, answered: asyncio.Future[Reply]) -> None:
        self.answer: Respond = answered.set_result


def _request(target: str, body: object, headers: Mapping[str, str]) -> Request:
    content = json.dumps(body).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    parser = RequestParser(1 << 20, 1 << 26)
    parser.feed(f"POST {target} HTTP/1.1\r\nHost: cpro\r\n{lines}Content-Length: {len(content)}\r\n\r\n".encode())
    parser.feed(content)
    request = parser.next_request()
    assert request is not None, "the headers are incomplete"  # noqa: S101
    return request


def _forward(event: str, backend: Backend) -> Handle:
    read = read_connect_answer if event == "connect" else read_answer
    return partial(_ask_backend, event, backend, read)


def _ask_backend(
    event: str, backend: Backend, read: Callable[[bytes], Reply], _: Operation, request: Request, respond: Respond
) -> Reply:
    return read(json.dumps(backend(event, json.loads(request.body))).encode())
