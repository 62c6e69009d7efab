"""What a plugin has of its worker: the `App` of `extension`, over cpro's own HTTP client."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from cpro._fast.http1 import Request, RequestParser
from cpro.config.model import Settings
from cpro.errors import ConfigError, PluginError, ProtocolError
from cpro.extension import HttpEndpoint, HttpError
from cpro.http.client import Failure, HttpClient, Outcome
from cpro.http.endpoints import parse_endpoint
from cpro.plugins.calls import Calls

MAX_REPLY_BYTES = 1 << 20
_LIMIT_BYTES = 1 << 26

MakeEndpoint = Callable[[str, Mapping[str, str], float], HttpEndpoint]


class PluginApp:
    """One plugin's `App`."""

    def __init__(self, plugin: str, settings: Settings, calls: Calls, make_endpoint: MakeEndpoint) -> None:
        self._plugin = plugin
        self._calls = calls
        self._make_endpoint = make_endpoint
        self.settings = settings
        self.log = logging.getLogger(f"cpro.plugin.{plugin}")

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        self._calls.spawn(self._plugin, work)

    def http(self, url: str, headers: Mapping[str, str], timeout_s: float) -> HttpEndpoint:
        try:
            parse_endpoint(url)
            return self._make_endpoint(url, headers, timeout_s)
        except (ConfigError, ValueError) as error:
            raise PluginError(self._plugin, f"can't post to that URL: {error}") from error


class Endpoints:
    """Every HTTP endpoint that plugins of this process have made."""

    def __init__(self) -> None:
        self._clients: list[HttpClient] = []

    def make(self, url: str, headers: Mapping[str, str], timeout_s: float) -> HttpEndpoint:
        """ConfigError or ValueError say what is wrong with the URL or the headers."""
        client = HttpClient(
            asyncio.get_running_loop(),
            timeout_s=timeout_s,
            connect_timeout_s=timeout_s,
            max_reply_bytes=MAX_REPLY_BYTES,
        )
        endpoint = _Endpoint(client, url, headers)
        self._clients.append(client)
        return endpoint

    async def close(self) -> None:
        """Fail what is in flight, and leave nothing open."""
        await asyncio.gather(*(client.close(0.0) for client in self._clients))


class _Endpoint:
    """POSTs to one URL. A request is one that could have come in: parsed from its own bytes, then forwarded."""

    def __init__(self, client: HttpClient, url: str, headers: Mapping[str, str]) -> None:
        self._route = client.route([url], may_repeat=False)
        if any(line_end in text for pair in headers.items() for text in pair for line_end in "\r\n"):
            raise ValueError("a header must not hold a line's end")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = b"POST / HTTP/1.1\r\nHost: cpro\r\n" + lines.encode("latin-1")
        self._parse(b"")  # so that bad headers are said at once

    async def post(self, body: bytes) -> tuple[int, bytes]:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._route.send(self._parse(body), partial(_settle, answered))
        outcome = await answered
        if isinstance(outcome, Failure):
            raise HttpError(outcome.name.lower().replace("_", " "))
        return outcome.status, outcome.body

    def _parse(self, body: bytes) -> Request:
        parser = RequestParser(_LIMIT_BYTES, _LIMIT_BYTES)
        try:
            parser.feed(self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            request = parser.next_request()
        except ProtocolError as error:
            raise ValueError(f"headers can't be sent: {error}") from error
        if request is None:
            raise ValueError("headers can't be sent")
        return request


def _settle(answered: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not answered.done():  # nobody waits any more
        answered.set_result(outcome)
