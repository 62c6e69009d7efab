"""What must hold between settings, and what is allowed but worth a warning."""

import re
import ssl
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from . import tls
from .address import TcpAddress, parse_address
from .checks import TEMPLATE_VARIABLE
from .duration import UNITS_NS
from .faults import Faults, Path
from .model import TLS, Redis, Settings
from .redis_address import check_redis, redis_for
from .redis_url import Sentinel
from .schema import fields_of
from .size import Size

_CENTRIFUGO_TIMEOUT_NS: Final = UNITS_NS["s"]
_LEAST_JOURNAL_BYTES: Final = 4 << 20  # of one worker: a few of the smallest segments, so that some can be shipped
_RATE_LIMIT: Final = ("client", "rate_limit")
_TOKEN_KEYS: Final = ("hmac_secret_key", "hmac_previous_secret_key", "rsa_public_key", "ecdsa_public_key")
_GATEWAY_ONLY: Final = frozenset({"unsubscribe", "history", "presence", "presence_stats", "track", "untrack"})
"""Operations that Centrifugo tells no proxy of."""


def check_settings(settings: Settings, faults: Faults) -> None:
    _check_addresses(settings, faults)
    _check_upstream(settings, faults)
    _check_redis(settings, faults)
    _check_listener_tls(settings.proxy.tls, ("proxy", "tls"), faults)
    _check_listener_tls(settings.http_api.tls, ("http_api", "tls"), faults)
    _check_gateway(settings, faults)
    _check_analytics(settings, faults)
    _warn_of_proxy(settings, faults)
    _check_api(settings, faults)
    _warn_of_limits(settings, faults)


def _check_addresses(settings: Settings, faults: Faults) -> None:
    gateway = settings.gateway
    taken = {settings.proxy.address: "proxy.address"}
    listeners: list[tuple[Path, str]] = [(("http_api", "address"), settings.http_api.address)]
    if gateway.enabled:
        listeners.append((("gateway", "address"), gateway.address))
    if gateway.enabled and gateway.internal_address:
        listeners.append((("gateway", "internal_address"), gateway.internal_address))
    for path, text in listeners:
        address = parse_address(text)
        if isinstance(address, TcpAddress) and address.port == 0:
            continue
        if text in taken:
            faults.fault(path, f"must not be the same as {taken[text]}")
        taken.setdefault(text, ".".join(map(str, path)))


def _check_gateway(settings: Settings, faults: Faults) -> None:
    gateway = settings.gateway
    _check_listener_tls(gateway.tls, ("gateway", "tls"), faults)
    _check_client_tls(gateway.centrifugo_tls, ("gateway", "centrifugo_tls"), faults, "Centrifugo's")
    if not gateway.enabled:
        return
    if not gateway.centrifugo:
        faults.fault(("gateway", "centrifugo"), "must have at least one URL")
    if gateway.proxy_protocol and not gateway.trusted_proxies and not gateway.address.startswith("unix:"):
        faults.warn(("gateway", "proxy_protocol"), "has no effect without trusted_proxies")
    if gateway.internal_address and not settings.secret:
        faults.warn(("gateway", "internal_address"), "has no effect without secret, the same on all nodes")
    if gateway.user_id_http_header and not gateway.trusted_proxies:
        faults.warn(("gateway", "user_id_http_header"), "has no effect without trusted_proxies")
    token = gateway.token
    for one, other in (("audience", "audience_regex"), ("issuer", "issuer_regex")):
        if getattr(token, one) and getattr(token, other):
            faults.fault(("gateway", "token", other), f"must not be set beside {one}")
    known = {name for one in (token.issuer_regex, token.audience_regex) for name in _groups_of(one)}
    for name in sorted(set(TEMPLATE_VARIABLE.findall(token.jwks_public_endpoint)) - known):
        reason = f"{{{{{name}}}}} is no group of issuer_regex or audience_regex"
        faults.fault(("gateway", "token", "jwks_public_endpoint"), reason)
    keys = [name for name in _TOKEN_KEYS if getattr(token, name)]
    if token.jwks_public_endpoint and keys:
        faults.fault(("gateway", "token", "jwks_public_endpoint"), f"must not be set beside {keys[0]}")


def _groups_of(pattern: str) -> Iterable[str]:
    try:
        return re.compile(pattern).groupindex
    except re.error:  # said already
        return ()


def _check_upstream(settings: Settings, faults: Faults) -> None:
    upstream, path = settings.proxy.upstream, ("proxy", "upstream")
    if upstream.endpoint and upstream.endpoints:
        faults.fault((*path, "endpoints"), "must not be set beside proxy.upstream.endpoint: list them all in endpoints")
    _check_client_tls(upstream.tls, (*path, "tls"), faults, "backends'")


def _check_redis(settings: Settings, faults: Faults) -> None:
    block = settings.client.rate_limit.redis_user_command
    places: tuple[tuple[Redis, Path], ...] = (
        (settings.redis, ("redis",)),
        (block.redis, (*_RATE_LIMIT, "redis_user_command", "redis")),
        (settings.user_status.redis, ("user_status", "redis")),
    )
    for redis, path in places:
        shards = check_redis(redis, path, faults)
        used = next((shard.access.tls for shard in shards if shard.access.tls), None)
        _check_client_tls(used or redis.tls, (*path, "tls"), faults, "servers'")
        used = next((shard.sentinel_access.tls for shard in shards if isinstance(shard, Sentinel)), None)
        _check_client_tls(used or redis.sentinel_tls, (*path, "sentinel_tls"), faults, "Sentinels'")


def _check_analytics(settings: Settings, faults: Faults) -> None:
    analytics, path = settings.clickhouse_analytics, ("clickhouse_analytics",)
    _check_client_tls(analytics.tls, (*path, "tls"), faults, "servers'")
    least = Size(settings.workers * _LEAST_JOURNAL_BYTES)
    if analytics.enabled and analytics.max_journal_size < least:
        faults.fault((*path, "max_journal_size"), f"must be at least {least} for {settings.workers} workers")


def _check_client_tls(config: TLS, path: Path, faults: Faults, whose: str) -> None:
    _warn_of_idle_tls(config, path, faults)
    if not config.enabled or faults.hit(path):
        return
    if bool(config.cert_pem) != bool(config.key_pem):
        faults.fault(path, "must have both cert_pem and key_pem, or neither")
        return
    if _check_pems(config, ("cert_pem", "key_pem", "server_ca_pem"), path, faults):
        try:
            tls.client_context(config)
        except (ValueError, ssl.SSLError, OSError) as error:
            faults.fault(path, str(error) if isinstance(error, ValueError) else "can't be used by OpenSSL")
    if config.insecure_skip_verify:
        faults.warn((*path, "insecure_skip_verify"), f"{whose} certificates are not verified")


def _check_listener_tls(config: TLS, path: Path, faults: Faults) -> None:
    _warn_of_idle_tls(config, path, faults)
    if not config.enabled or faults.hit(path):
        return
    for name in ("cert_pem", "key_pem"):
        if not getattr(config, name):
            faults.fault((*path, name), "is missing: TLS is enabled")
    if not faults.hit(path) and _check_pems(config, ("cert_pem", "key_pem", "client_ca_pem"), path, faults):
        try:
            tls.server_context(config)
        except (ValueError, ssl.SSLError, OSError) as error:
            faults.fault(path, str(error) if isinstance(error, ValueError) else "can't be used by OpenSSL")


def _check_pems(config: TLS, names: tuple[str, ...], path: Path, faults: Faults) -> bool:
    for name in names:
        value = getattr(config, name)
        try:
            if value:
                tls.resolve_pem(value)
        except ValueError as error:
            faults.fault((*path, name), str(error))
    return not faults.hit(path)


def _warn_of_idle_tls(config: TLS, path: Path, faults: Faults) -> None:
    changed = [name for name, field in fields_of(TLS).items() if getattr(config, name) != field.default]
    if changed and not config.enabled:
        faults.warn(path, "has no effect until it has `enabled: true`")


def _warn_of_proxy(settings: Settings, faults: Faults) -> None:
    proxy = settings.proxy
    if proxy.without_upstream == "allow":
        faults.warn(("proxy", "without_upstream"), "allow replaces Centrifugo's own permission checks")
    if proxy.upstream.timeout >= _CENTRIFUGO_TIMEOUT_NS:
        faults.warn(("proxy", "upstream", "timeout"), "is not below 1s, after which Centrifugo gives up by default")
    if not proxy.secret and not faults.hit(("proxy", "address")) and not parse_address(proxy.address).is_loopback:
        faults.warn(("proxy", "secret"), "is empty, and proxy.address can be reached from other machines")


def _check_api(settings: Settings, faults: Faults) -> None:
    api = settings.http_api
    if urlsplit(api.centrifugo).netloc == api.address and not faults.hit(("http_api",)):
        faults.fault(("http_api", "centrifugo"), "must not be cpro's own address")
    if api.centrifugo and not api.centrifugo_key:
        faults.warn(("http_api", "centrifugo_key"), "is empty: Centrifugo's API answers 401 to what goes there")
    elif api.centrifugo_key and not api.centrifugo:
        faults.warn(("http_api", "centrifugo_key"), "has no effect without http_api.centrifugo")


def _warn_of_limits(settings: Settings, faults: Faults) -> None:
    limits = settings.client.rate_limit
    if limits.dry_run:
        faults.warn((*_RATE_LIMIT, "dry_run"), "nothing is refused")
    for name in ("client_command", "user_command", "redis_user_command"):
        block = getattr(limits, name)
        if block.enabled and block.dry_run:
            faults.warn((*_RATE_LIMIT, name, "dry_run"), "nothing is refused by this block")
        if block.enabled and not settings.gateway.enabled:
            for operation in sorted(_GATEWAY_ONLY & block.operations.keys()):
                if block.operations[operation].enabled:
                    reason = "has no effect without the gateway: Centrifugo does not tell cpro of this operation"
                    faults.warn((*_RATE_LIMIT, name, operation), reason)
    if limits.client_error.enabled and not settings.gateway.enabled:
        faults.warn((*_RATE_LIMIT, "client_error"), "has no effect without the gateway, which counts the errors")
    _warn_of_redis(settings, faults)
    if limits.anonymous == "ip" and not settings.proxy.ip_header:
        faults.warn((*_RATE_LIMIT, "anonymous"), "without proxy.ip_header no address is known, so ip means client")


def _warn_of_redis(settings: Settings, faults: Faults) -> None:
    block = settings.client.rate_limit.redis_user_command
    if block.enabled and redis_for(block.redis, settings.redis) is None:
        faults.warn((*_RATE_LIMIT, "redis_user_command"), "is kept on this node: no Redis address is set")
