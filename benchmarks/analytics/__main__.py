"""`python -m benchmarks.analytics`: from the journal to ClickHouse, beside its own client; into docs/analytics.md.

The embedded engine runs in this process, its merges are stopped, and there is no other load. Ratios are of CPU time, of
all threads: what a shared machine does meanwhile hardly changes it. The time that passes includes waiting for the disk.
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
    parser.add_argument("--rounds", type=int, default=9)
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
    client.command("SYSTEM STOP MERGES")  # those of one insert would be counted with the next
    recorded = Recorded(folder, 100_000)
    building = [build(client, recorded) for _ in range(rounds)]
    inserting: dict[int, list[Round]] = {count: [] for count in SIZES}
    for number in range(-1, rounds):
        for count, found in inserting.items():
            found.append(insert(client, sink, settings, folder, count, number))
    for found in inserting.values():
        del found[0]  # the engine has warmed up
    client.close()
    sink.close()
    return {
        "journal_bytes_per_row": recorded.journal_bytes / recorded.count,
        "block_bytes_per_row": len(recorded.block(Blocks(LAYOUT))) / recorded.count,
        "build": building,
        "insert": inserting,
    }


SIZES = (10_000, 100_000)
INSERTS = 400_000
"""Rows that each way inserts in a round, in batches of a size."""
Spent = dict[str, float]
Round = dict[str, Spent]
"""What each way spent in a round: `cpu_s`, `wall_s`."""


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


def insert(client, sink, settings: Settings, folder: Path, count: int, number: int) -> Round:
    """A round: out of the journal through the sink; a ready block into the same table; into a bare one. In turn."""
    recorded = Recorded(folder, count, seed=100 + number)
    blocks = Blocks(LAYOUT)
    block = recorded.block(blocks)
    table = plan_of(settings).name("operations")
    unique = {"insert_deduplicate": 0}  # the same block again would not be stored

    def ours(turn: int) -> None:
        sink.write(Batch(f"{count}-{number}-{turn}", OPERATIONS, count, recorded.block(blocks)))

    def ready(_: int) -> None:
        client.raw_insert(table, insert_block=block, settings=unique, fmt="Native")

    def bare(_: int) -> None:
        client.raw_insert("bare", insert_block=block, fmt="Native")

    ways = {"ours": ours, "ready": ready, "bare": bare}
    found = {name: {"cpu_s": 0.0, "wall_s": 0.0} for name in ways}
    for turn in range(INSERTS // count):
        for name in _rotated(list(ways), number + turn):
            before = time.process_time(), time.perf_counter()
            ways[name](turn)
            found[name]["cpu_s"] += time.process_time() - before[0]
            found[name]["wall_s"] += time.perf_counter() - before[1]
    recorded.reader.close()
    return found


def _rotated(names: list[str], turn: int) -> list[str]:
    """So that nobody is always the first, or always after the same."""
    shift = turn % len(names)
    return names[shift:] + names[:shift]


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
        "| rows in a batch | cpro, journal to stored, µs of CPU per row | a ready block into the same table "
        "| **ratio** | into a table without rollups, syncs and tokens | rows/s of the three |",
        "|---|---|---|---|---|---|",
    ]
    for count, rounds in found["insert"].items():
        ratios = sorted(one["ready"]["cpu_s"] / one["ours"]["cpu_s"] for one in rounds)
        cpu_us = [median(one[way]["cpu_s"] for one in rounds) / INSERTS * 1e6 for way in ("ours", "ready", "bare")]
        speeds = [INSERTS / median(one[way]["wall_s"] for one in rounds) for way in ("ours", "ready", "bare")]
        lines.append(
            f"| {int(count):,} | {cpu_us[0]:.2f} | {cpu_us[1]:.2f} | **{median(ratios):.2f}** "
            f"({ratios[0]:.2f} … {ratios[-1]:.2f}) | {cpu_us[2]:.2f} | "
            f"{', '.join(f'{speed:,.0f}' for speed in speeds)} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
