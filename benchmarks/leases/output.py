"""What every script here prints: the numbers as JSON, then a table for people."""

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.load.machine import describe
from benchmarks.load.report import put

FIGURES = Path(__file__).resolve().parents[1] / "README.md"


def show(found: object, head: Sequence[str], rows: Iterable[Sequence[str]], *, keep: str = "") -> None:
    """`keep` names the place of the table in benchmarks/README.md, if it is to be kept."""
    print(json.dumps(found, indent=1))
    print()
    table = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    print("\n".join(table))
    if keep:
        put(FIGURES, keep, [made_on(describe(sys.executable)), "", *table])


def made_on(machine: dict) -> str:
    """When, and on what."""
    return f"{machine['date']}; {machine['cpu']}, Linux {machine['kernel']}; load before: {machine['load_before']}."


def spread(values: Sequence[float]) -> dict[str, float]:
    """Of several rounds: the median and the extremes."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}
