"""One address of Redis in Centrifugo's notation -> a shard; ValueError says what is wrong without repeating the text.

host:port
redis://[[user]:password@]host[:port][/db]      also rediss:// (TLS) and tcp://; several `addr` mean a cluster
unix://[[user]:password@]/path/to.sock
redis+sentinel://…?sentinel_master_name=…       also rediss+sentinel://
redis+cluster://…                               also rediss+cluster://
"""

from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from .address import TcpAddress, UnixAddress, parse_address, parse_host, parse_port
from .duration import Duration
from .faults import nearest
from .model import TLS

_PORT: Final = 6379  # IANA's for redis://
_SENTINEL_PORT: Final = 26379
_SCHEMES: Final = {
    "redis": ("", False),
    "tcp": ("", False),
    "rediss": ("", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_SENTINEL_OPTIONS: Final = ("sentinel_master_name", "sentinel_user", "sentinel_password", "sentinel_tls_enabled")
_OPTIONS: Final = (
    "addr", "connect_timeout", "io_timeout", "tls_enabled", "force_resp2", "replica_client_enabled", *_SENTINEL_OPTIONS,
)  # fmt: skip
_TRUTHS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),  # Go's strconv.ParseBool
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_MASTER_NAME_MISSING: Final = "names Sentinels, so sentinel_master_name must be set"


@dataclass(frozen=True)
class Access:
    """How to be let in: at Redis, or at a Sentinel."""

    user: str = ""
    password: str = field(default="", repr=False)
    client_name: str = ""
    tls: TLS | None = None  # None: plain TCP
    resp2: bool = False
    connect_timeout_s: float = 1.0
    io_timeout_s: float = 1.0


@dataclass(frozen=True)
class Standalone:
    """One server; a cluster that turns up there is followed."""

    address: TcpAddress | UnixAddress
    access: Access = Access()
    db: int = 0


@dataclass(frozen=True)
class Sentinel:
    sentinels: tuple[TcpAddress, ...]
    master_name: str
    sentinel_access: Access = Access()
    access: Access = Access()
    db: int = 0


@dataclass(frozen=True)
class Cluster:
    seeds: tuple[TcpAddress, ...]
    access: Access = Access()


Shard = Standalone | Sentinel | Cluster


@dataclass(frozen=True)
class Defaults:
    """What the Redis object says besides addresses; a URL overrides it. `tls`, `sentinel_tls` count once it is on."""

    access: Access
    db: int
    tls: TLS
    sentinel_access: Access
    sentinel_tls: TLS
    master_name: str


def parse_shard(text: str, defaults: Defaults) -> Shard:
    """One entry of `address`."""
    if "://" not in text:
        if "," in text:
            raise ValueError("must be one host:port or URL: several shards are a list")
        return Standalone(parse_host_port(text), defaults.access, defaults.db)
    if any(char <= " " or char == "\x7f" for char in text):
        raise ValueError("must not have spaces or control characters in a URL")
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError("has a bad IPv6 address") from None
    if url.scheme not in _SCHEMES:
        raise ValueError(f"must be host:port or a URL that starts with one of {', '.join(f'{s}://' for s in _SCHEMES)}")
    if url.fragment:
        raise ValueError("must not have a fragment: write # as %23")
    kind, is_tls = _SCHEMES[url.scheme]
    options, more = _read_query(url.query, kind)
    access = _access_of(url, options, defaults, is_tls)
    if kind == "unix":
        return _unix_shard(url, access, defaults.db, is_seeded=bool(more))
    seeds = (_host_of(url, _SENTINEL_PORT if kind == "sentinel" else _PORT), *more)
    db = _db_of(url, defaults.db)
    if kind == "sentinel":
        return _sentinel_shard(seeds, access, db, options, defaults)
    if kind == "cluster" or more:
        if db:
            raise ValueError("must be database 0: a Redis Cluster has no other")
        return Cluster(seeds, access)
    return Standalone(seeds[0], access, db)


def parse_seeds(text: str) -> tuple[TcpAddress, ...]:
    """One entry of `cluster_address` or `sentinel_address`: `host:port,host:port`."""
    if "://" in text:
        raise ValueError("must be host:port, several joined by commas; URLs stand in `address`")
    return tuple(parse_host_port(part.strip()) for part in text.split(","))


def parse_host_port(text: str) -> TcpAddress:
    if not text or "/" in text or "@" in text or ":" not in text:
        raise ValueError("must be host:port or a URL")
    address = parse_address(text)
    if not isinstance(address, TcpAddress):
        raise ValueError("must be host:port or a URL")
    if address.port == 0:
        raise ValueError("must not have port 0")
    return address


def _read_query(query: str, kind: str) -> tuple[dict[str, str], tuple[TcpAddress, ...]]:
    """Options of a URL by name, and its `addr`."""
    options: dict[str, str] = {}
    seeds: list[TcpAddress] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            best = nearest(name, _OPTIONS)
            raise ValueError(f"has an unknown option; {f'the nearest is {best}' if best else 'known: ' + _KNOWN}")
        if name in _SENTINEL_OPTIONS and kind != "sentinel":
            raise ValueError(f"must start with redis+sentinel:// to have {name}")
        if name == "addr":
            seeds.append(parse_host_port(value))
        elif name in options:
            raise ValueError(f"has {name} more than once")
        else:
            options[name] = value
    return options, tuple(seeds)


_KNOWN: Final = ", ".join(_OPTIONS)


def _access_of(url: SplitResult, options: dict[str, str], defaults: Defaults, is_tls: bool) -> Access:
    access = defaults.access
    if url.username:
        access = replace(access, user=unquote(url.username))
    if url.password is not None:
        access = replace(access, password=unquote(url.password))
    if _truth(options, "tls_enabled", is_tls or (access.tls is not None and url.scheme != "unix")):
        access = replace(access, tls=_enabled(defaults.tls))
    else:
        access = replace(access, tls=None)
    _truth(options, "replica_client_enabled", False)
    return replace(
        access,
        resp2=_truth(options, "force_resp2", access.resp2),
        connect_timeout_s=_seconds(options, "connect_timeout", access.connect_timeout_s),
        io_timeout_s=_seconds(options, "io_timeout", access.io_timeout_s),
    )


def _sentinel_shard(
    seeds: tuple[TcpAddress, ...], access: Access, db: int, options: dict[str, str], defaults: Defaults
) -> Sentinel:
    name = options.get("sentinel_master_name") or defaults.master_name
    if not name:
        raise ValueError(_MASTER_NAME_MISSING)
    is_tls = _truth(options, "sentinel_tls_enabled", defaults.sentinel_access.tls is not None)
    sentinel_access = replace(
        defaults.sentinel_access,
        user=options.get("sentinel_user", defaults.sentinel_access.user),
        password=options.get("sentinel_password", defaults.sentinel_access.password),
        tls=_enabled(defaults.sentinel_tls) if is_tls else None,
        resp2=access.resp2,
        connect_timeout_s=access.connect_timeout_s,
        io_timeout_s=access.io_timeout_s,
    )
    return Sentinel(seeds, name, sentinel_access, access, db)


def _unix_shard(url: SplitResult, access: Access, db: int, *, is_seeded: bool) -> Standalone:
    if url.hostname or is_seeded:
        raise ValueError("must be unix:// followed by an absolute path, such as unix:///run/redis.sock")
    if access.tls is not None:
        raise ValueError("must not have TLS on a unix socket")
    address = parse_address(f"unix://{unquote(url.path)}")
    return Standalone(address, access, db)


def _host_of(url: SplitResult, port: int) -> TcpAddress:
    host = url.netloc.rpartition("@")[2]
    if not host:
        raise ValueError("must have a host")
    name, colon, digits = host.rpartition(":")
    if not colon or host.endswith("]"):
        return TcpAddress(parse_host(host), port)
    if parse_port(digits) == 0:
        raise ValueError("must not have port 0")
    return TcpAddress(parse_host(name), int(digits))


def _db_of(url: SplitResult, default: int) -> int:
    text = url.path.removeprefix("/")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise ValueError("must have the number of a database as its path, such as redis://host:6379/2")
    return int(text)


def _truth(options: dict[str, str], name: str, default: bool) -> bool:
    text = options.get(name)
    if text is None:
        return default
    if text not in _TRUTHS:
        raise ValueError(f"has an option {name} that is neither true nor false")
    return _TRUTHS[text]


def _seconds(options: dict[str, str], name: str, default: float) -> float:
    text = options.get(name)
    if text is None:
        return default
    try:
        seconds = Duration.parse(text).seconds
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600:
        raise ValueError(f'has an option {name} that is not a duration from 1ms to 1h, such as "500ms"')
    return seconds


def _enabled(tls: TLS) -> TLS:
    return tls if tls.enabled else msgspec.structs.replace(tls, enabled=True)
