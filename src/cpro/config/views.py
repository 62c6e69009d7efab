"""Settings looked at from outside: without secrets, and compared with others."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .duration import Duration
from .faults import render
from .model import Settings
from .schema import HIDDEN, fields_of
from .size import Size

_EXPORTS: Final = (
    "connections.enabled", "connections.export_users", "connections.http_headers",
    "subscriptions.enabled", "subscriptions.export_users",
    "operations.enabled", "operations.export_users",
    "publications.enabled", "publications.export_channels",
    *(f"{table}.{setting}" for table in ("connections", "subscriptions", "operations", "publications")
      for setting in ("flush_interval", "flush_size")),
)  # fmt: skip
RELOADABLE: Final = (
    "client.rate_limit",
    "proxy.upstream",
    "proxy.without_upstream",
    "proxy.secret",
    "proxy.connect_user_header",
    "proxy.ip_header",
    "http_api.key",
    "http_api.centrifugo",
    "http_api.centrifugo_key",
    "gateway.token",
    "gateway.user_id_http_header",
    "gateway.trusted_proxies",
    "gateway.max_connections",
    "gateway.max_connections_per_ip",
    "gateway.message_size_limit",
    "gateway.compression",
    "gateway.pass_unknown",
    "gateway.snapshot_interval",
    "secret",
    "log.level",
    "channel",
    "rpc",
    *(f"clickhouse_analytics.export.{setting}" for setting in _EXPORTS),
)
_NEEDS_RESTART: Final = "client.rate_limit.redis_user_command.redis"  # the one exception below those


def redacted(settings: Settings) -> dict[str, Any]:
    """Plain values for logs and pages, written as in a file; secrets that are set are hidden."""
    return _plain_block(settings)


def changes_needing_restart(old: Settings, new: Settings) -> list[str]:
    """Dotted paths of settings that differ and that a running service can't take over."""
    return [path for path in _changes(old, new, ()) if not is_reloadable(path)]


def _plain_block(block: msgspec.Struct) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in fields_of(type(block)).values():
        value = getattr(block, field.name)
        if field.inline:
            result.update(_plain(value))
        else:
            result[field.name] = HIDDEN if field.secret and value else _plain(value)
    return result


def _plain(value: Any) -> Any:  # noqa: ANN401 - any setting
    if isinstance(value, msgspec.Struct):
        return _plain_block(value)
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, tuple):
        return [_plain(child) for child in value]
    return str(value) if isinstance(value, Duration | Size) else value


def _changes(old: msgspec.Struct, new: msgspec.Struct, path: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for field in fields_of(type(old)).values():
        here = (*path, field.name)
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.block is not None:
            found += _changes(before, after, here)
        elif before != after:
            found.append(render(here))
    return found


def is_reloadable(path: str) -> bool:
    """Whether SIGHUP puts a change of this setting in force."""
    return any(_is_within(path, known) for known in RELOADABLE) and not _is_within(path, _NEEDS_RESTART)


def _is_within(path: str, known: str) -> bool:
    return path == known or path.startswith(known + ".")
