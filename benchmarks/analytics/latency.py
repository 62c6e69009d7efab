"""`python -m benchmarks.analytics.latency`: how soon a row can be asked for, and what analytics costs a worker.

Into benchmarks/results/latency.json and benchmarks/README.md, unless --quick, which prints.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from benchmarks.load import cpro, report
from benchmarks.load.cpu import spent
from benchmarks.load.driver import PATH, drive
from benchmarks.load.machine import describe
from benchmarks.load.measure import memory_folder
from benchmarks.load.peers import ROOT
from benchmarks.load.places import apart
from benchmarks.load.processes import Program
from cpro.analytics.query import Question, ask
from cpro.errors import StoreError

RESULT = ROOT / "benchmarks" / "results" / "latency.json"
PACE_S = 0.005
POLL_S = 0.02


def exporting(*tables: str) -> dict[str, object]:
    return {"clickhouse_analytics": {"enabled": True, "export": {table: {"enabled": True} for table in tables}}}


ANALYTICS = exporting("operations")
WAYS: dict[str, dict[str, object]] = {
    "off": {},
    "on": ANALYTICS,
    "publications": exporting("operations", "publications"),
}
SHIP, AIM = 1.08, 1.03
SHIP_S, AIM_S = 2.5, 1.5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analytics.latency", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds, to see that it works")
    parser.add_argument("--rounds", type=int, help="rounds of with and without (5)")
    parser.add_argument("--seconds", type=int, help="length of one measurement (4)")
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (2 if options.quick else 4)
    found = {
        "machine": describe(sys.executable),
        "rounds": rounds,
        "seconds": seconds,
        "visible_s": visible(seconds * 2),
        "cpu_us": [{way: serve_us(more, seconds) for way, more in WAYS.items()} for _ in range(rounds)],
    }
    lines = lines_of(found)
    print("\n".join(lines))
    if not options.quick:
        RESULT.write_text(json.dumps(found, indent=1) + "\n")
        report.put(report.README, "latency", lines)
    return 0


@contextmanager
def running(more: dict) -> Iterator[tuple[Program, int, Path]]:
    with tempfile.TemporaryDirectory(dir=memory_folder(), prefix="cpro-latency-") as name:
        folder = Path(name)
        launch = cpro.launch(sys.executable, folder, more=more)
        with Program(launch.argv, apart().server, launch.port, launch.env) as program:
            yield program, launch.port, folder / "data"


def serve_us(more: dict, seconds: int) -> float:
    """CPU time of the worker for a request, under all the load it takes."""
    with running(more) as (program, port, _):
        drive(port, 1, apart().load)
        workers = [pid for pid in program.pids() if _runs(pid, b"cpro.run.worker")]
        before = spent(workers)
        seen = drive(port, seconds, apart().load)
        return spent(workers).since(before).run_ns / seen.requests / 1000


def _runs(pid: int, module: bytes) -> bool:
    return module in Path(f"/proc/{pid}/cmdline").read_bytes()


def visible(seconds: int) -> dict[str, float]:
    """From a reply to the first query that finds its row, for publishes every few milliseconds on one connection."""
    with running(ANALYTICS) as (_, port, data_dir):
        while _newest(data_dir) < 0:
            time.sleep(POLL_S)
        replied: list[float] = []
        publisher = threading.Thread(target=_publish, args=(port, seconds, replied))
        publisher.start()
        waits: list[float] = []
        while publisher.is_alive() or len(waits) < len(replied):
            newest = _newest(data_dir)
            now = time.monotonic()
            waits += [now - sent for sent in replied[len(waits) : newest]]
            time.sleep(POLL_S)
        publisher.join()
    waits.sort()
    return {"p50": waits[len(waits) // 2], "p99": waits[len(waits) * 99 // 100], "rows": len(waits)}


def _newest(data_dir: Path) -> int:
    """How many rows are there, which are stored in order; -1 before there is a table."""
    with suppress(StoreError):
        answer = ask(data_dir, Question("SELECT max(toUInt32OrZero(user)) FROM operations", "csv"))
        return int(answer.split()[1])
    return -1


def _publish(port: int, seconds: int, replied: list[float]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        body = json.dumps({"client": "c1", "user": str(len(replied) + 1), "channel": "chat:room1", "data": {}})
        connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        replied.append(time.monotonic())
        time.sleep(PACE_S)
    connection.close()


def lines_of(found: dict) -> list[str]:
    rounds = found["cpu_us"]
    off, on, published = (median(one[way] for one in rounds) for way in WAYS)
    ratios, of_both = ([one[way] / one["off"] for one in rounds] for way in ("on", "publications"))
    seen, machine = found["visible_s"], found["machine"]
    return [
        f"{machine['date']}; {machine['cpu']}, {os.cpu_count()} cores, Linux {machine['kernel']}; load before: "
        f"{machine['load_before']}. `python -m benchmarks.analytics.latency`: {found['rounds']} rounds of "
        f"{found['seconds']} s, embedded ClickHouse, `flush_interval: 1s`.",
        "",
        "| what | measured | spread | ship at | aim |",
        "|---|---|---|---|---|",
        f"| serving with analytics on, the worker's CPU per request, ratio to off ({off:.1f} µs → {on:.1f} µs) "
        f"| **{median(ratios):.3f}** | {min(ratios):.3f} … {max(ratios):.3f} | ≤ {SHIP:g} | ≤ {AIM:g} |",
        f"| the same with a row of `publications` for each, too (→ {published:.1f} µs) "
        f"| {median(of_both):.3f} | {min(of_both):.3f} … {max(of_both):.3f} | | |",
        f"| reply sent → row visible to a query, p99 of {seen['rows']:,} | **{seen['p99']:.2f} s** "
        f"| p50 {seen['p50']:.2f} s | ≤ {SHIP_S:g} s | {AIM_S:g} s |",
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
