"""The part of Centrifugo v6's configuration that points it at this cpro."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from cpro.errors import ConfigError

from .address import TcpAddress, parse_address
from .checks import is_namespace
from .model import CommandBlock, OperationLimit, Settings

CONNECTION_HEADER: Final = "X-Cpro-Connection"
SECRET_HEADER: Final = "X-Cpro-Secret"  # noqa: S105 - the header's name

_THIS_HOST: Final = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}  # noqa: S104 - what to dial when all are bound
_MAP_EVENTS: Final = {"map_publish": "publish_proxy_enabled", "map_remove": "remove_proxy_enabled"}
_CHANNEL_NAMES: Final = ("namespace_boundary", "private_prefix", "user_boundary")


class Taken(NamedTuple):
    """What plugins handle, so that Centrifugo has to send it."""

    events: frozenset[str] = frozenset()
    rpc_methods: tuple[str, ...] = ()
    rpc_namespaces: tuple[str, ...] = ()
    rpc_operations: frozenset[str] = frozenset()
    """Operations whose namespaces are those of RPC methods."""


NOTHING_TAKEN: Final = Taken()


def centrifugo_config(settings: Settings, taken: Taken = NOTHING_TAKEN) -> dict[str, Any]:
    """Only what is configured, and what plugins have `taken`; ConfigError if Centrifugo can't reach the proxy door."""
    base = _base_url(settings)
    events = _events(settings) | taken.events

    def proxy(event: str) -> dict[str, Any]:
        return _proxy(settings, f"{base}/{event}", event)

    channel_events = ("subscribe", "publish", "sub_refresh", "map_publish", "map_remove")
    result: dict[str, Any] = {
        "client": {
            "proxy": {event: {"enabled": True, **proxy(event)} for event in ("connect", "refresh") if event in events}
        },
        "channel": {
            "proxy": {event: proxy(event) for event in channel_events if event in events},
            "without_namespace": _channel_options(events, events),
        },
        "rpc": {"proxy": proxy("rpc"), "without_namespace": {"proxy_enabled": True}},
    }
    _add_namespaces(result, settings, events, taken)
    _add_boundaries(result, settings)
    return result


def _base_url(settings: Settings) -> str:
    address = parse_address(settings.proxy.address)
    if not isinstance(address, TcpAddress):
        raise ConfigError(["proxy.address: Centrifugo can't call a Unix socket: use host:port"])
    if address.port == 0:
        raise ConfigError(["proxy.address: port 0 means any free port, so Centrifugo can't know it: name one"])
    scheme = "https" if settings.proxy.tls.enabled else "http"
    return f"{scheme}://{TcpAddress(_THIS_HOST.get(address.host, address.host), address.port)}{settings.proxy.prefix}"


def _events(settings: Settings) -> set[str]:
    """Events Centrifugo should ask cpro about; an unanswered refresh would keep everybody for ever or for nothing."""
    upstream = settings.proxy.upstream
    answered = bool(upstream.endpoint or upstream.endpoints) or settings.proxy.without_upstream == "allow"
    events = {"connect", "subscribe", "publish", "rpc"}
    events |= {event for event in ("refresh", "sub_refresh") if answered or event in upstream.overrides}
    events |= {event for event in _MAP_EVENTS if event in upstream.overrides or _limits_of(settings, event)}
    return events


def _limits_of(settings: Settings, operation: str) -> list[OperationLimit]:
    """What the blocks that are on say about an operation."""
    limits = [block.operations.get(operation) for block in _blocks(settings)]
    return [limit for limit in limits if limit is not None and limit.enabled]


def _blocks(settings: Settings) -> list[CommandBlock]:
    limits = settings.client.rate_limit
    return [block for block in (limits.client_command, limits.user_command, limits.redis_user_command) if block.enabled]


def _proxy(settings: Settings, endpoint: str, event: str) -> dict[str, Any]:
    headers = [CONNECTION_HEADER]
    if settings.client.rate_limit.anonymous == "ip" and settings.proxy.ip_header:
        headers.append(settings.proxy.ip_header)
    if event == "connect" and settings.proxy.connect_user_header:
        headers.append(settings.proxy.connect_user_header)
    if event == "connect":
        headers += _exported_headers(settings)
    result: dict[str, Any] = {"endpoint": endpoint, "timeout": "1s", "http_headers": _once(headers)}
    if settings.proxy.secret:
        result["http"] = {"static_headers": {SECRET_HEADER: settings.proxy.secret}}
    return result


def _exported_headers(settings: Settings) -> tuple[str, ...]:
    """What rows of connections have of a connection's request."""
    connections = settings.clickhouse_analytics.export.connections
    return connections.http_headers if settings.clickhouse_analytics.enabled and connections.enabled else ()


def _once(headers: Iterable[str]) -> list[str]:
    """Each header by the first of its spellings."""
    names: dict[str, str] = {}
    for name in headers:
        names.setdefault(name.lower(), name)
    return list(names.values())


def _channel_options(events: set[str], map_events: set[str]) -> dict[str, Any]:
    options: dict[str, Any] = {
        f"{event}_proxy_enabled": True for event in ("subscribe", "publish", "sub_refresh") if event in events
    }
    maps = {key: True for event, key in _MAP_EVENTS.items() if event in map_events}
    return {**options, "map": maps} if maps else options


def _namespace_options(events: set[str], overridden: set[str]) -> dict[str, Any]:
    """Centrifugo answers 107 to a map subscription that a proxy allowed: namespaces of maps alone get no such proxy."""
    maps = set(_MAP_EVENTS)
    return _channel_options(set() if overridden <= maps else events, events if overridden & maps else set())


def _add_namespaces(result: dict[str, Any], settings: Settings, events: set[str], taken: Taken) -> None:
    channel: dict[str, set[str]] = {}  # namespace -> operations that override something for it
    boundary = settings.rpc.namespace_boundary
    rpc = dict.fromkeys([*taken.rpc_namespaces, *_namespaces_of(taken.rpc_methods, boundary)])
    for block in _blocks(settings):
        for operation, limit in block.operations.items():
            if not limit.enabled:
                continue
            if operation == "rpc" or operation in taken.rpc_operations:
                rpc.update(dict.fromkeys(_rpc_namespaces(limit, boundary)))
                continue
            for override in limit.namespace_overrides:
                channel.setdefault(override.namespace_name, set()).add(operation)
    if channel:
        result["channel"]["namespaces"] = [
            {"name": name, **_namespace_options(events, operations)} for name, operations in channel.items()
        ]
    if rpc:
        result["rpc"]["namespaces"] = [{"name": name, "proxy_enabled": True} for name in rpc]


def _rpc_namespaces(limit: OperationLimit, boundary: str) -> list[str]:
    """Those named, and those of methods named; Centrifugo refuses calls in a namespace it does not know."""
    methods = [override.method for override in limit.method_overrides]
    return [override.namespace_name for override in limit.namespace_overrides] + _namespaces_of(methods, boundary)


def _namespaces_of(methods: Iterable[str], boundary: str) -> list[str]:
    cut = [method.partition(boundary)[0] for method in methods if boundary and boundary in method]
    return [name for name in cut if is_namespace(name)]


def _add_boundaries(result: dict[str, Any], settings: Settings) -> None:
    """Both sides must cut names at the same places."""
    default = Settings()
    for name in _CHANNEL_NAMES:
        if getattr(settings.channel, name) != getattr(default.channel, name):
            result["channel"][name] = getattr(settings.channel, name)
    if settings.rpc != default.rpc:
        result["rpc"]["namespace_boundary"] = settings.rpc.namespace_boundary
