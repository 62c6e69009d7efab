"""`python -m benchmarks.load`: cpro and its peers, one after the other, in rounds. See benchmarks/README.md.

A full run keeps its result in benchmarks/results/load.json and in the tables of benchmarks/README.md and
docs/performance.md; with --quick or --only it only prints.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean

from benchmarks.load import report
from benchmarks.load.anatomy import dissect, why_not
from benchmarks.load.cases import Case, cases
from benchmarks.load.driver import CONNECTIONS, USERS
from benchmarks.load.machine import describe
from benchmarks.load.measure import measure
from benchmarks.load.memory import measure_memory
from benchmarks.load.peers import ROOT, AbsentError
from benchmarks.load.places import apart, together

RESULTS = ROOT / "benchmarks" / "results"
PERFORMANCE = ROOT / "docs" / "performance.md"
DISSECTED = ("nginx-return", "cpro-answered", "nginx-proxy", "cpro-forwarded")


def main() -> int:
    options = _parse()
    chosen = [case for case in cases(options.cpro) if any(part in case.name for part in options.only)]
    titles = report.titles_of(chosen)
    result: dict = {"machine": describe(options.cpro), "rounds": options.rounds, "seconds": options.seconds}
    result |= {"connections": CONNECTIONS, "users": USERS}
    result["places"] = f"{apart().how}; where it says two cores: {together().how}"
    rounds, result["skipped"] = _run_rounds(chosen, options.rounds, options.seconds)
    result["stolen"] = mean(one.stolen for own in rounds.values() for one in own)
    if options.memory:
        _say("memory")
        result["memory"] = measure_memory(options.cpro)
    if options.syscalls:
        result["anatomy"] = _dissect([case for case in chosen if case.name in DISSECTED], options.seconds, result)
    result["cases"] = {name: [one.as_dict() for one in own] for name, own in rounds.items()}
    result["ratios"] = {
        f"{comparison.case} / {comparison.peer}": found
        for comparison in report.COMPARISONS
        if (found := report.ratios(rounds, comparison))
    }
    lines = [*report.machine_lines(result), "", *report.ratio_table(rounds, titles), ""]
    lines += report.case_table(rounds, titles)
    if options.memory:
        lines += ["", *report.memory_table(result["memory"])]
    anatomy = report.anatomy_tables(result["anatomy"], rounds, titles) if result.get("anatomy") else []
    print("\n".join([*lines, "", *anatomy]))
    if options.keep:
        _keep(result, lines, anatomy)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds of a second, to see that it works")
    parser.add_argument("--rounds", type=int, help="rounds of all cases (5)")
    parser.add_argument("--seconds", type=int, help="length of one measurement (4)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="only cases whose name has one of these in it")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave the memory part out")
    parser.add_argument("--syscalls", action="store_true", help="also count system calls and sample with perf (root)")
    parser.add_argument("--cpro", default=sys.executable, metavar="PYTHON", help="interpreter that has cpro")
    options = parser.parse_args()
    options.keep = not (options.quick or options.only)
    options.only = options.only or [""]
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 4)
    options.cpro = str(Path(options.cpro).absolute())
    return options


def _run_rounds(chosen: list[Case], count: int, seconds: int) -> tuple[report.Rounds, list[str]]:
    rounds: report.Rounds = {case.name: [] for case in chosen}
    skipped: dict[str, str] = {}
    for number in range(1, count + 1):
        for case in chosen:
            if case.name in skipped:
                continue
            try:
                one = measure(case, seconds)
            except AbsentError as reason:
                skipped[case.name] = f"{case.title}: {reason}"
                _say(f"skipped: {skipped[case.name]}")
                continue
            rounds[case.name].append(one)
            _say(f"round {number}/{count}: {case.name}: {one.cpu_us:.1f} µs, {one.requests_per_s:,.0f}/s")
    return {name: own for name, own in rounds.items() if own}, list(skipped.values())


def _dissect(chosen: list[Case], seconds: int, result: dict) -> dict[str, dict]:
    reason = why_not()
    if reason:
        result["skipped"].append(f"system calls: {reason}")
        return {}
    found = {}
    for case in chosen:
        _say(f"perf: {case.name}")
        found[case.name] = dissect(case, seconds)
    return found


def _keep(result: dict, lines: list[str], anatomy: list[str]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "load.json").write_text(json.dumps(result, indent=1) + "\n")
    report.put(report.README, "load", lines)
    if anatomy:
        report.put(PERFORMANCE, "anatomy", [report.machine_lines(result)[0], "", *anatomy])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
