"""The plugin's options, `plugins.parquet` in cpro's configuration."""

from typing import Any, Literal

import msgspec

from cpro.plugins import Duration

TABLES = ("operations", "connections", "subscriptions", "publications")


class Options(msgspec.Struct, frozen=True):
    target: str = ""
    """Folder, or any URL that fsspec knows: `/var/lib/cpro/parquet`, `s3://bucket/cpro`. Empty: nothing is written."""
    storage_options: dict[str, Any] = {}
    """For fsspec: credentials, endpoints."""
    tables: tuple[Literal["operations", "connections", "subscriptions", "publications"], ...] = TABLES  # type: ignore[assignment]
    compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = "zstd"
    flush_interval: Duration = Duration.parse("1m")
    """Longest time a row waits for its file."""
    flush_size: int = 500_000
    """Most rows of a file. One is written sooner where that much is too large to hold in memory."""
