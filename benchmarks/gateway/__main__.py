"""`python -m benchmarks.gateway`: the gateway beside HAProxy, before a real Centrifugo, in rounds.

A full run keeps its result in benchmarks/results/gateway.json and in a table of benchmarks/README.md; with --quick it
only prints.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.gateway import report, stands
from benchmarks.load.machine import describe
from benchmarks.load.measure import memory_folder
from benchmarks.load.peers import ROOT, AbsentError, Launch
from benchmarks.load.places import apart
from benchmarks.load.processes import Program
from benchmarks.load.report import README, put

RESULT = ROOT / "benchmarks" / "results" / "gateway.json"
CONNECTIONS = 40
PACES = {"paced": 0.5, "light": 0.1}
"""Shares of what the slowest server did when it was asked for as much as it can."""
Found = dict[str, list[dict[str, float]]]


def main() -> int:
    options = _parse()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result: dict = {"machine": describe(sys.executable), "rounds": options.rounds, "seconds": options.seconds}
    result |= {"connections": CONNECTIONS, "listeners": options.listeners, "places": apart().how.replace("wrk", "load")}
    try:
        result["cases"] = _rounds(options)
    except AbsentError as reason:
        print(f"The gateway can't be measured here: {reason}.", file=sys.stderr)
        return 1
    result["ratios"] = report.ratios(result["cases"])
    lines = report.lines(result)
    print("\n".join(lines))
    if options.keep:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        put(README, "gateway", lines)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of a second with fewer clients, prints only")
    parser.add_argument("--rounds", type=int, help="rounds of everything (5)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (4)")
    parser.add_argument("--only", nargs="+", default=list(report.KINDS), choices=list(report.KINDS))
    parser.add_argument("--listeners", type=int, default=1000, help="clients that a broadcast goes to")
    parser.add_argument("--idle", type=int, help="idle connections (5000)")
    options = parser.parse_args()
    options.keep = not options.quick and options.only == list(report.KINDS)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 4.0)
    options.idle = options.idle or (1000 if options.quick else 5000)
    return options


def _rounds(options: argparse.Namespace) -> dict[str, Found]:
    """What was found: by kind of load, by server, round by round."""
    cases: dict[str, Found] = {kind: {name: [] for name in report.SERVERS} for kind in options.only}
    for number in range(1, options.rounds + 1):
        full_per_s = 0.0
        for kind in options.only:
            for name in report.servers_of(kind):
                with _standing(name) as stand:
                    one = _load(kind, stand, options, full_per_s)
                cases[kind][name].append(one)
                _say(f"round {number}/{options.rounds}: {kind}: {name}: " + report.told(kind, one))
            if kind == "roundtrips":  # of the slowest
                full_per_s = min(cases[kind][name][-1]["per_s"] for name in report.servers_of(kind))
    return cases


class Stand:
    """Servers that run: the one that clients go to, and Centrifugo behind it."""

    def __init__(self, port: int, pid: int, centrifugo: int) -> None:
        self.port = port
        self.pid = pid
        self.centrifugo = centrifugo


@contextmanager
def _standing(name: str) -> Iterator[Stand]:
    places = apart()
    with tempfile.TemporaryDirectory(dir=memory_folder(), prefix="cpro-gateway-") as folder:
        behind = stands.centrifugo(Path(folder) / "centrifugo")
        with _program(behind, places.backend) as centrifugo:
            if name == "centrifugo":
                yield Stand(behind.port, centrifugo.pids()[0], behind.port)
                return
            start = {"haproxy": stands.haproxy, "gateway": partial(stands.gateway, sys.executable)}[name]
            before = start(Path(folder) / name, behind.port)
            with _program(before, places.server) as program:
                yield Stand(before.port, program.pids()[0], behind.port)


def _program(launch: Launch, cores: str) -> Program:
    return Program(launch.argv, cores, launch.port, launch.env)


def _load(kind: str, stand: Stand, options: argparse.Namespace, full_per_s: float) -> dict[str, float]:
    asked: dict = {"port": stand.port, "pid": stand.pid, "connections": CONNECTIONS, "seconds": options.seconds}
    if kind == "broadcast":
        asked |= {"connections": options.listeners, "api_port": stand.centrifugo}
    elif kind in PACES:
        asked["per_s"] = PACES[kind] * full_per_s or 1000.0
    elif kind == "idle":
        asked["connections"] = options.idle
        del asked["seconds"]
    argv = ["taskset", "-c", apart().load, sys.executable, "-m", "benchmarks.gateway.load", kind, json.dumps(asked)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=300, cwd=ROOT)
    return json.loads(done.stdout)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
