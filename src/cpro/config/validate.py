"""What must hold between settings, and what is allowed but worth a warning."""

import ssl
from typing import Final

from . import tls
from .address import TcpAddress, parse_address
from .duration import UNITS_NS
from .faults import Faults, Path
from .model import TLS, RateLimit, Settings
from .schema import fields_of

_CENTRIFUGO_TIMEOUT_NS: Final = UNITS_NS["s"]
_RATE_LIMIT: Final = ("client", "rate_limit")


def check_settings(settings: Settings, faults: Faults) -> None:
    _check_addresses(settings, faults)
    _check_upstream(settings, faults)
    _check_listener_tls(settings.proxy.tls, ("proxy", "tls"), faults)
    _check_listener_tls(settings.http_api.tls, ("http_api", "tls"), faults)
    _warn_of_proxy(settings, faults)
    _warn_of_limits(settings, faults)


def _check_addresses(settings: Settings, faults: Faults) -> None:
    api = parse_address(settings.http_api.address)
    free_port = isinstance(api, TcpAddress) and api.port == 0
    if settings.proxy.address == settings.http_api.address and not free_port:
        faults.fault(("http_api", "address"), "must not be the same as proxy.address")


def _check_upstream(settings: Settings, faults: Faults) -> None:
    upstream, path = settings.proxy.upstream, ("proxy", "upstream")
    if upstream.endpoint and upstream.endpoints:
        faults.fault((*path, "endpoints"), "must not be set beside proxy.upstream.endpoint: list them all in endpoints")
    _warn_of_idle_tls(upstream.tls, (*path, "tls"), faults)
    if not upstream.tls.enabled or faults.hit((*path, "tls")):
        return
    if bool(upstream.tls.cert_pem) != bool(upstream.tls.key_pem):
        faults.fault((*path, "tls"), "must have both cert_pem and key_pem, or neither")
        return
    if _check_pems(upstream.tls, ("cert_pem", "key_pem", "server_ca_pem"), (*path, "tls"), faults):
        try:
            tls.client_context(upstream.tls)
        except (ValueError, ssl.SSLError, OSError) as error:
            faults.fault((*path, "tls"), str(error) if isinstance(error, ValueError) else "can't be used by OpenSSL")
    if upstream.tls.insecure_skip_verify:
        faults.warn((*path, "tls", "insecure_skip_verify"), "backends' certificates are not verified")


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


def _warn_of_limits(settings: Settings, faults: Faults) -> None:
    limits = settings.client.rate_limit
    if limits.dry_run:
        faults.warn((*_RATE_LIMIT, "dry_run"), "nothing is refused")
    for name in ("client_command", "user_command", "redis_user_command"):
        block = getattr(limits, name)
        if block.enabled and block.dry_run:
            faults.warn((*_RATE_LIMIT, name, "dry_run"), "nothing is refused by this block")
    _warn_of_redis(limits, faults)
    if limits.anonymous == "ip" and not settings.proxy.ip_header:
        faults.warn((*_RATE_LIMIT, "anonymous"), "without proxy.ip_header no address is known, so ip means client")


def _warn_of_redis(limits: RateLimit, faults: Faults) -> None:
    if limits.redis_user_command.enabled:
        faults.warn(
            (*_RATE_LIMIT, "redis_user_command"), "is kept on this node: Redis is not available in this version"
        )
