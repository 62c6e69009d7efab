"""What stands in the files, and that a batch that comes twice is there once; by the readers that people use."""

import io
import json
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from cpro.errors import PluginError
from cpro.extension import PluginConfig
from cpro.testing import SinkHarness, batch
from cpro_sink_parquet import plugin

MONDAY, TUESDAY = 1_700_438_400, 1_700_524_800  # 2023-11-20 and 21, midnight UTC
ROW = {
    "client": "c1",
    "user": "42",
    "op": "publish",
    "channel": "chat:1",
    "error": 111,
    "duration": 2**63,
    "labels": {"a": "b", "é": ""},
    "time": MONDAY + 5,
}


def sink_at(target: object, **options: object):
    return plugin.cpro_sinks(PluginConfig("parquet", {"target": str(target), **options}))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def read(folder: Path, table: str) -> list[dict]:
    return ds.dataset(folder / table, partitioning="hive").to_table().to_pylist()


def test_a_batch_becomes_a_file_of_its_day(tmp_path):
    sink_at(tmp_path).write(batch("operations", [ROW], "b1"))
    assert files(tmp_path) == ["operations/date=2023-11-20/b1.parquet"]
    (row,) = read(tmp_path, "operations")
    assert (row["client"], row["user"], row["op"], row["error"], row["duration"]) == ("c1", "42", "publish", 111, 2**63)
    assert dict(row["labels"]) == {"a": "b", "é": ""}
    assert row["time"].isoformat() == "2023-11-20T00:00:05+00:00"


def test_rows_of_two_days_become_two_files(tmp_path):
    rows = [{**ROW, "user": str(number), "time": TUESDAY - 5 + number} for number in range(10)]
    sink_at(tmp_path).write(batch("operations", rows, "b1"))
    assert files(tmp_path) == [f"operations/date=2023-11-2{day}/b1.parquet" for day in (0, 1)]
    assert sorted(int(row["user"]) for row in read(tmp_path, "operations")) == list(range(10))


def test_a_batch_that_comes_again_replaces_itself(tmp_path):
    sink = sink_at(tmp_path)
    for _ in range(2):
        sink.write(batch("operations", [ROW], "b1"))
        sink.write(batch("operations", [ROW], "b2"))
    assert len(read(tmp_path, "operations")) == 2


def test_a_file_is_there_in_whole_or_not_at_all(tmp_path, monkeypatch):
    sink = sink_at(tmp_path)
    sink.write(batch("operations", [ROW], "b1"))
    written = pq.write_table

    def break_off(rows, file, **options):
        whole = io.BytesIO()
        written(rows, whole, **options)
        file.write(whole.getvalue()[:100])
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", break_off)
    with pytest.raises(OSError, match="disk full"):
        sink.write(batch("operations", [ROW], "b2"))
    assert len(read(tmp_path, "operations")) == 1
    monkeypatch.setattr(pq, "write_table", written)
    sink.write(batch("operations", [ROW], "b2"))
    assert len(read(tmp_path, "operations")) == 2
    assert files(tmp_path) == [f"operations/date=2023-11-20/b{number}.parquet" for number in (1, 2)]


@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_every_table_is_readable_by_clickhouse(tmp_path, compression):
    sink = sink_at(tmp_path, compression=compression)
    sink.write(batch("operations", [ROW, {**ROW, "user": "ü", "op": "connect"}], "b1"))
    sink.write(
        batch("connections", [{"user": "42", "headers": {"X": ["1", "2"]}, "latency": -5, "time": MONDAY}], "b1")
    )
    sink.write(batch("subscriptions", [{"channel": "a", "time": MONDAY}], "b1"))
    sink.write(batch("publications", [{"channel": "a", "size": 7, "time": MONDAY}], "b1"))
    operations = f"file('{tmp_path}/operations/*/*.parquet', Parquet)"
    assert clickhouse(f"select user, op, error, labels, toUnixTimestamp(time) t from {operations} order by user") == [
        {"user": "42", "op": "publish", "error": 111, "labels": ROW["labels"], "t": MONDAY + 5},
        {"user": "ü", "op": "connect", "error": 111, "labels": ROW["labels"], "t": MONDAY + 5},
    ]
    assert clickhouse(f"select headers, latency from file('{tmp_path}/connections/*/*.parquet', Parquet)") == [
        {"headers": {"X": ["1", "2"]}, "latency": -5}
    ]
    assert clickhouse(f"select size from file('{tmp_path}/publications/*/*.parquet', Parquet)") == [{"size": 7}]


def clickhouse(sql: str) -> list[dict]:
    """By the engine itself, in a process of its own."""
    code = "import chdb, sys; sys.stdout.buffer.write(chdb.query(sys.argv[1], 'JSONEachRow').bytes())"
    settings = " settings output_format_json_quote_64bit_integers = 0"
    done = subprocess.run([sys.executable, "-c", code, sql + settings], capture_output=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_only_the_tables_that_are_wanted_are_written(tmp_path):
    sink = sink_at(tmp_path, tables=["subscriptions"])
    sink.write(batch("operations", [ROW], "b1"))
    sink.write(batch("subscriptions", [{"time": MONDAY}], "b1"))
    assert files(tmp_path) == ["subscriptions/date=2023-11-20/b1.parquet"]


def test_any_store_that_fsspec_knows_will_do():
    sink = sink_at("memory://archive/cpro")
    for _ in range(2):
        sink.write(batch("operations", [ROW], "b1"))
    store = fsspec.filesystem("memory")
    assert store.find("/archive/cpro") == ["/archive/cpro/operations/date=2023-11-20/b1.parquet"]
    with store.open("/archive/cpro/operations/date=2023-11-20/b1.parquet") as file:
        assert pq.read_table(file).num_rows == 1


def test_through_the_journal_every_row_is_in_a_file_once(tmp_path):
    sink = sink_at(tmp_path, flush_size=100)
    sink.flush_interval_s = 0.05
    with SinkHarness(sink, rows=100) as cpro:
        for number in range(1000):
            cpro.record("operations", user=str(number), op="publish", time=MONDAY)
        assert cpro.shipped(1000)
        assert cpro.errors == 0
    assert sorted(int(row["user"]) for row in read(tmp_path, "operations")) == list(range(1000))
    assert len(files(tmp_path)) >= 10


def test_without_a_target_it_does_nothing():
    assert sink_at("") is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target": "nosuch://bucket"}, "plugins.parquet.target: "),
        ({"tragte": "/x"}, "plugins.parquet.tragte: is not a known option; the nearest is target"),
        ({"target": "/x", "tables": ["users"]}, "plugins.parquet.tables"),
        ({"target": "/x", "flush_size": 0}, "flush_size must be at least 1"),
        ({"target": "/x", "compression": "zip"}, "plugins.parquet.compression"),
    ],
)
def test_wrong_options_stop_the_start(options, reason):
    with pytest.raises(PluginError, match=reason):
        plugin.cpro_sinks(PluginConfig("parquet", options))
