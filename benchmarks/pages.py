"""Where findings stand: the numbers in benchmarks/results, their tables in a page, between two marks."""

import json
from pathlib import Path

MARKS = ("<!-- findings -->\n", "<!-- end of findings -->\n")


def publish(found: dict, tables: str, result: Path, page: Path) -> None:
    """Put numbers and tables in place of those of the last run."""
    result.write_text(json.dumps(found, indent=1) + "\n")
    text = page.read_text()
    head, tail = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    page.write_text(head + MARKS[0] + "\n" + tables + "\n" + MARKS[1] + tail)
