"""What every script here prints: the numbers as JSON, then a table for people."""

import json
import statistics
from collections.abc import Iterable, Sequence


def show(found: object, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(json.dumps(found, indent=1))
    print()
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Of several rounds: the median and the extremes."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}
