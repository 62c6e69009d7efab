"""`python -m benchmarks.analytics`: from the journal to ClickHouse, beside its own client; into docs/analytics.md.

The embedded engine runs in this process, and there is no other load.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.analytics.rows import LAYOUT, Recorded
from benchmarks.load.machine import describe
from benchmarks.pages import publish
from cpro._fast.columns import Blocks
from cpro.analytics.batch import Batch
from cpro.analytics.clickhouse import plan_of, sink_of
from cpro.analytics.embedded import open_embedded
from cpro.analytics.schema import OPERATIONS
from cpro.config.model import ClickhouseAnalytics, Settings

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "analytics.json"
PAGE = ROOT / "docs" / "analytics.md"
COLUMNS = [column.name for column in OPERATIONS.columns]

Clock = Callable[[], float]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analytics", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cpro-analytics-") as folder:
        found = {"machine": describe(sys.executable), "chdb": version("chdb"), **measure(Path(folder), options.rounds)}
    page = report(found)
    print(page)
    if not options.print_only:
        publish(found, page, RESULT, PAGE)
    return 0


def measure(folder: Path, rounds: int) -> dict[str, object]:
    settings = Settings(data_dir=str(folder), clickhouse_analytics=ClickhouseAnalytics(enabled=True))
    sink = sink_of(settings)
    sink.open()
    client = open_embedded(folder / "clickhouse")
    for name, table in (("ready", plan_of(settings).name("operations")), ("bare", "bare")):
        if name == "bare":
            columns = ", ".join(f"`{column.name}` {column.type}" for column in OPERATIONS.columns)
            client.command(f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY time")
    recorded = Recorded(folder, 100_000)
    building = [build(client, recorded) for _ in range(rounds)]
    inserting = {count: [insert(client, sink, settings, folder, count, n) for n in range(rounds)] for count in SIZES}
    client.close()
    sink.close()
    return {
        "journal_bytes_per_row": recorded.journal_bytes / recorded.count,
        "block_bytes_per_row": len(recorded.block(Blocks(LAYOUT))) / recorded.count,
        "build": building,
        "insert": inserting,
    }


SIZES = (10_000, 100_000)


def timed(work: Callable[[], object], clock: Clock) -> float:
    before = clock()
    work()
    return clock() - before


def build(client, recorded: Recorded) -> dict[str, float]:
    """CPU seconds for the rows' block: from the journal, and by clickhouse-connect from lists that are at hand."""
    blocks = Blocks(LAYOUT)
    recorded.block(blocks)

    def driver() -> None:
        context = client.create_insert_context("bare", COLUMNS, data=recorded.columns, column_oriented=True)
        for _ in client._transform.build_insert(context):
            pass

    driver()
    ours = min(timed(lambda: recorded.block(blocks), time.thread_time) for _ in range(5))
    theirs = min(timed(driver, time.thread_time) for _ in range(3))
    return {"ours_us_per_row": ours / recorded.count * 1e6, "driver_us_per_row": theirs / recorded.count * 1e6}


def insert(client, sink, settings: Settings, folder: Path, count: int, number: int) -> dict[str, float]:
    """Seconds for a batch: out of the journal through the sink; a ready block into the same table; into a bare one."""
    recorded = Recorded(folder, count, seed=100 + number)
    blocks = Blocks(LAYOUT)
    block = recorded.block(blocks)
    table = plan_of(settings).name("operations")

    def ours() -> None:
        sink.write(Batch(f"{count}-{number}", OPERATIONS, count, recorded.block(blocks)))

    def ready() -> None:
        client.raw_insert(table, insert_block=block, fmt="Native")

    def bare() -> None:
        client.raw_insert("bare", insert_block=block, fmt="Native")

    found = {}
    works = [("ours_s", ours), ("ready_s", ready), ("bare_s", bare)]
    for name, work in works[number % 3 :] + works[: number % 3]:
        found[name] = timed(work, time.perf_counter)
    recorded.reader.close()
    return found


def report(found: dict) -> str:
    machine = found["machine"]
    ours = median(one["ours_us_per_row"] for one in found["build"])
    driver = median(one["driver_us_per_row"] for one in found["build"])
    ratios = sorted(one["driver_us_per_row"] / one["ours_us_per_row"] for one in found["build"])
    lines = [
        f"{machine['date']}; {machine['cpu']}, Linux {machine['kernel']}; chdb {found['chdb']}; load before: "
        f"{machine['load_before']}. `python -m benchmarks.analytics`; medians (extremes) of "
        f"{len(found['build'])} rounds.",
        "",
        f"Rows of `operations`, {found['journal_bytes_per_row']:.0f} bytes each in the journal, "
        f"{found['block_bytes_per_row']:.0f} in a block.",
        "",
        "| from the journal to a block, CPU per row | µs |",
        "|---|---|",
        f"| cpro | {ours:.2f} ({1 / ours:.1f} M rows per CPU-second) |",
        f"| clickhouse-connect, from lists that are ready | {driver:.2f} |",
        f"| **ratio** | **{median(ratios):.1f}** ({ratios[0]:.1f} … {ratios[-1]:.1f}) |",
        "",
        "| rows in a batch | cpro, journal to stored, rows/s | a ready block into the same table | "
        "**ratio** | into a table without rollups, syncs and tokens |",
        "|---|---|---|---|---|",
    ]
    for count, rounds in found["insert"].items():
        ratios = sorted(one["ready_s"] / one["ours_s"] for one in rounds)
        speeds = [int(count) / median(one[name] for one in rounds) for name in ("ours_s", "ready_s", "bare_s")]
        lines.append(
            f"| {int(count):,} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | **{median(ratios):.2f}** "
            f"({ratios[0]:.2f} … {ratios[-1]:.2f}) | {speeds[2]:,.0f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
