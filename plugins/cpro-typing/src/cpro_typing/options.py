"""The plugin's options: `plugins.typing` in cpro's configuration."""

from typing import Any

import msgspec

from cpro.plugins import Duration

PAYLOAD = {"type": "typing", "user": "{user}"}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    api_url: str = "http://127.0.0.1:8000/api"
    """Centrifugo's server API; `/publish` is appended."""
    api_key: str = ""
    """Centrifugo's `http_api.key`. Empty: the plugin does nothing."""
    methods: tuple[str, ...] = ("typing",)
    """RPC methods it answers."""
    namespaces: tuple[str, ...] | None = None
    """Channel namespaces it publishes into, "" for channels without one; unset means all."""
    private_channels: bool = False
    """Whether it publishes into channels with Centrifugo's private prefix."""
    payload: dict[str, Any] = msgspec.field(default_factory=PAYLOAD.copy)
    """What is published; `{user}` and `{channel}` as values stand for the two."""
    fold: Duration = Duration.parse("2s")
    """One publication per user, channel and this time."""
    timeout: Duration = Duration.parse("1s")
    """Longest time that Centrifugo's API may take."""
