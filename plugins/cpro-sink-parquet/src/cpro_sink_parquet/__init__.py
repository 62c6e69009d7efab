"""Analytics of cpro as Parquet files: one per batch, table and day, on a disk or wherever fsspec reaches."""

from cpro_sink_parquet.plugin import ParquetPlugin

plugin = ParquetPlugin()
