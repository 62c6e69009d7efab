"""The hooks, and the one operation: answered at once, published in the background."""

import time
from typing import Any

import msgspec

from cpro.plugins import (
    BAD_REQUEST,
    PERMISSION_DENIED,
    App,
    Duration,
    HttpEndpoint,
    HttpError,
    OperationType,
    PluginConfig,
    PluginError,
    PluginOperation,
    Reply,
    channel_namespace,
    hookimpl,
    result_reply,
)
from cpro_typing.fold import Fold
from cpro_typing.options import Options

BUCKETS = {"user_command": [{"interval": "2s", "rate": 4}]}
"""Per user and channel: a client that calls at every key stroke is told so."""
LONGEST_CHANNEL = 255  # Centrifugo's own limit
LEAST_FOLD = Duration.parse("1ms")
MOST_IN_FLIGHT = 1000
"""Publications under way while Centrifugo is slow; those beyond are given up."""


class Request(msgspec.Struct, frozen=True):
    """The RPC's payload."""

    channel: str


class TypingPlugin:
    """The entry point: its methods are the hooks."""

    def __init__(self) -> None:
        self._options = Options()
        self._fold = Fold(self._options.fold)
        self._app: App
        self._endpoint: HttpEndpoint
        self._in_flight = 0

    @hookimpl
    def cpro_operations(self, config: PluginConfig) -> list[OperationType]:
        self._options = config.read(Options)
        if self._options.fold < LEAST_FOLD:
            raise PluginError(config.plugin, f"plugins.{config.plugin}.fold: must be at least {LEAST_FOLD}")
        self._fold = Fold(self._options.fold)
        if not self._options.api_key:
            return []
        return [
            OperationType(
                name="typing", handle=self.handle, methods=self._options.methods, buckets=BUCKETS, scope=channel_of
            )
        ]

    @hookimpl
    def cpro_startup(self, app: App) -> None:
        self._app = app
        if not self._options.api_key:
            app.log.warning("does nothing until its option api_key is set")
            return
        headers = {"X-API-Key": self._options.api_key, "Content-Type": "application/json"}
        url = self._options.api_url.rstrip("/") + "/publish"
        self._endpoint = app.http(url, headers, self._options.timeout.seconds)

    async def handle(self, operation: PluginOperation) -> Reply:
        """Says yes and publishes, at most once per user, channel and `fold`."""
        if not operation.user:
            return PERMISSION_DENIED
        channel = channel_of(operation)
        if not channel or len(channel) > LONGEST_CHANNEL:
            return BAD_REQUEST
        if not self._may_publish(operation.user, channel):
            return PERMISSION_DENIED
        if self._fold.lets(operation.user, channel, operation.started_ns):
            self._app.spawn(self._publish(operation.user, channel))
        return result_reply(data={})

    def _may_publish(self, user: str, channel: str) -> bool:
        """What can be known of a channel by its name; see the README for what can not."""
        names = self._app.settings.channel
        if names.private_prefix and channel.startswith(names.private_prefix) and not self._options.private_channels:
            return False
        _, limited, users = channel.partition(names.user_boundary) if names.user_boundary else (channel, "", "")
        if limited and user not in users.split(","):
            return False
        allowed = self._options.namespaces
        return allowed is None or channel_namespace(channel, names) in allowed

    async def _publish(self, user: str, channel: str) -> None:
        if self._in_flight >= MOST_IN_FLIGHT:
            raise HttpError(f"more than {MOST_IN_FLIGHT} publications are under way")
        self._in_flight += 1
        try:
            status, body = await self._endpoint.post(msgspec.json.encode(self._publication(user, channel)))
        finally:
            self._in_flight -= 1
        if status != 200 or b'"error"' in body:
            raise HttpError(f"Centrifugo's API answered {status}: {body[:200].decode(errors='replace')}")

    def _publication(self, user: str, channel: str) -> dict[str, Any]:
        stands_for = {"{user}": user, "{channel}": channel}
        data = {
            name: stands_for.get(value, value) if isinstance(value, str) else value
            for name, value in self._options.payload.items()
        }
        # Other workers and nodes fold on their own; by this key Centrifugo drops what is one too many.
        window = time.time_ns() // self._options.fold
        key = f"cpro-typing:{user}:{window}"
        return {"channel": channel, "data": data, "skip_history": True, "idempotency_key": key}


def channel_of(operation: PluginOperation) -> str:
    """The channel the client names, empty when it names none."""
    try:
        return operation.read(Request).channel
    except msgspec.DecodeError:
        return ""
