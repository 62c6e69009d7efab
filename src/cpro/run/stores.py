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


def status_store_of(settings: Settings) -> Deployment | None:
    """Where statuses of users are kept, if they are."""
    status = settings.user_status
    redis = redis_for(status.redis, settings.redis) if status.enabled else None
    return None if redis is None else parse_redis(redis)


def shards_of(settings: Settings) -> int:
    """How many shards the largest of them has; 0 where the node keeps everything."""
    deployments = (stores_of(settings).quotas, status_store_of(settings))
    return max(0 if deployment is None else len(deployment.shards) for deployment in deployments)
