"""Which Redis keeps what, by the settings a service started with."""

from dataclasses import dataclass

from cpro.config.model import FeatureRedis, Settings
from cpro.config.redis_address import Deployment, parse_redis, redis_for


@dataclass(frozen=True)
class Stores:
    """None: the node keeps it."""

    limits: Deployment | None
    """Of `redis_user_command`."""
    quotas: Deployment | None
    """Of the API's `rate_limit`: the same, else the shared `redis` block."""


def stores_of(settings: Settings) -> Stores:
    """Where limits and quotas are kept."""
    block = settings.client.rate_limit.redis_user_command
    redis = redis_for(block.redis if block.enabled else FeatureRedis(), settings.redis)
    deployment = None if redis is None else parse_redis(redis)
    return Stores(limits=deployment if block.enabled else None, quotas=deployment)


def shards_of(settings: Settings) -> int:
    """How many shards they have; 0 where the node keeps everything."""
    deployment = stores_of(settings).quotas
    return 0 if deployment is None else len(deployment.shards)
