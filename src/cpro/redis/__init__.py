"""Talks to Redis: standalone servers, Sentinels, clusters, and several of them sharing the keys."""

from .script import Script
from .shards import Shards

__all__ = ["Script", "Shards"]
