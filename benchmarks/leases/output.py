"""What every script here prints: the numbers as JSON, then a table for people."""

import json
import statistics
import sys
from collections.abc import Iterable, Sequence

from benchmarks.load.machine import describe, made_on
from benchmarks.load.report import README, put


def show(found: object, head: Sequence[str], rows: Iterable[Sequence[str]], *, keep: str = "") -> None:
    """`keep` names the place of the table in benchmarks/README.md, if it is to be kept."""
    print(json.dumps(found, indent=1))
    print()
    table = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    print("\n".join(table))
    if keep:
        put(README, keep, [made_on(describe(sys.executable)), "", *table])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Of several rounds: the median and the extremes."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}
