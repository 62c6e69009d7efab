"""The Redis object -> the shards it names; which object a feature uses."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from .faults import Faults, Path, render
from .model import FeatureRedis, Redis
from .redis_url import Access, Cluster, Defaults, Sentinel, Shard, parse_seeds, parse_shard

Read = TypeVar("Read")

_KEYS: Final = ("cluster_address", "sentinel_address", "address")  # the first that is set counts, as in Centrifugo


@dataclass(frozen=True)
class Deployment:
    """Where a feature's data is: one shard, or several that share the keys by `hashing.jump` in this order."""

    shards: tuple[Shard, ...]
    prefix: str  # starts every key


def redis_for(feature: FeatureRedis, shared: Redis) -> Redis | None:
    """The feature's own Redis, else the shared one; None: neither has an address, so everything stays on this node."""
    if not feature.reuse_from_engine and _key_of(feature):
        return feature
    return shared if _key_of(shared) else None


def parse_redis(redis: Redis) -> Deployment | None:
    """None: it has no address. ValueError says the first thing that is wrong, with its key."""

    def fail(path: Path, text: str) -> None:
        raise ValueError(f"{render(path)}: {text}")

    shards = tuple(_shards(redis, fail))
    return Deployment(shards, redis.prefix) if shards else None


def check_redis(redis: Redis, path: Path, faults: Faults) -> tuple[Shard, ...]:
    """Says everything that is wrong; returns the shards that are right."""
    shards = tuple(_shards(redis, lambda below, text: faults.fault((*path, *below), text)))
    used = _key_of(redis)
    for key in _KEYS:
        if getattr(redis, key) and key != used:
            faults.warn((*path, key), f"has no effect beside {used}")
    if isinstance(redis, FeatureRedis) and redis.reuse_from_engine and redis != FeatureRedis(reuse_from_engine=True):
        faults.fault((*path, "reuse_from_engine"), "must not be true beside other settings: it uses the shared block")
    elif isinstance(redis, FeatureRedis) and not used and redis != FeatureRedis() and not redis.reuse_from_engine:
        faults.warn(path, "has no effect without an address: the shared block is used")
    if redis.replica_client.enabled or any("replica_client_enabled" in text for text in redis.address):
        faults.warn((*path, "replica_client"), "has no effect in cpro: it talks to masters only")
    return shards


def _key_of(redis: Redis) -> str:
    return next((key for key in _KEYS if getattr(redis, key)), "")


def _shards(redis: Redis, fail: Callable[[Path, str], None]) -> Iterator[Shard]:
    defaults = _defaults_of(redis)
    match _key_of(redis):
        case "cluster_address":
            if redis.db:
                fail(("db",), "must be 0: a Redis Cluster has no other database")
            for seeds in _each(redis, "cluster_address", parse_seeds, fail):
                yield Cluster(seeds, defaults.access)
        case "sentinel_address":
            if not redis.sentinel_master_name:
                fail(("sentinel_master_name",), "is missing: sentinel_address is set")
            for seeds in _each(redis, "sentinel_address", parse_seeds, fail):
                yield Sentinel(
                    seeds, redis.sentinel_master_name, defaults.sentinel_access, defaults.access, defaults.db
                )
        case "address":
            yield from _each(redis, "address", lambda text: parse_shard(text, defaults), fail)


def _each(redis: Redis, key: str, parse: Callable[[str], Read], fail: Callable[[Path, str], None]) -> Iterator[Read]:
    for number, text in enumerate(getattr(redis, key)):
        try:
            parsed = parse(text)
        except ValueError as error:
            fail((key, number), str(error))
        else:
            yield parsed


def _defaults_of(redis: Redis) -> Defaults:
    access = Access(
        user=redis.user,
        password=redis.password,
        client_name=redis.client_name,
        tls=redis.tls if redis.tls.enabled else None,
        resp2=redis.force_resp2,
        connect_timeout_s=redis.connect_timeout.seconds,
        io_timeout_s=redis.io_timeout.seconds,
    )
    sentinel_access = replace(
        access,
        user=redis.sentinel_user,
        password=redis.sentinel_password,
        client_name=redis.sentinel_client_name,
        tls=redis.sentinel_tls if redis.sentinel_tls.enabled else None,
    )
    return Defaults(access, redis.db, redis.tls, sentinel_access, redis.sentinel_tls, redis.sentinel_master_name)
