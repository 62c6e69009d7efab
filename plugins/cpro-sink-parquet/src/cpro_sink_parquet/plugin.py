"""The sink: a batch becomes one file per day of its rows, named by its id, so that a repeated batch replaces itself."""

from collections.abc import Iterator
from functools import partial
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cpro.plugins import Batch, PluginConfig, PluginError, hookimpl
from cpro_sink_parquet.files import files_at
from cpro_sink_parquet.options import Options

DAY_S: Final = 86_400


class ParquetSink:
    """`{target}/{table}/date=YYYY-MM-DD/{batch id}.parquet`"""

    def __init__(self, options: Options) -> None:
        """Raises ValueError or ImportError where nothing can write to the target."""
        self.flush_interval_s = options.flush_interval.seconds
        self.flush_rows = options.flush_size
        self._tables = frozenset(options.tables)
        self._compression = options.compression
        self._files = files_at(options.target, options.storage_options)

    def open(self) -> None:
        """Nothing to do: folders are made as they are needed."""

    def write(self, batch: Batch) -> None:
        if batch.table.name not in self._tables:
            return
        for day, rows in by_day(batch.to_arrow()):
            self._files.put(f"{batch.table.name}/date={day}/{batch.id}.parquet", partial(self._fill, rows))

    def close(self) -> None:
        """Nothing is open."""

    def _fill(self, rows: pa.Table, file: IO[bytes]) -> None:
        pq.write_table(rows, file, compression=self._compression)


def by_day(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each day of `time` (UTC), days as `2026-01-31`."""
    days = pc.strftime(rows["time"], format="%Y-%m-%d")
    for day in pc.unique(days).sort():
        yield day.as_py(), rows.filter(pc.equal(days, day))


class ParquetPlugin:
    @hookimpl
    def cpro_sinks(self, config: PluginConfig) -> Any:  # noqa: ANN401 -- a sink, or None
        options = config.read(Options)
        if not options.target:
            return None
        if options.flush_size < 1 or options.flush_interval.seconds < 1:
            raise PluginError(config.plugin, "flush_size must be at least 1, flush_interval at least 1s")
        try:
            return ParquetSink(options)
        except (ValueError, ImportError) as error:
            raise PluginError(config.plugin, f"plugins.{config.plugin}.target: {error}") from error
