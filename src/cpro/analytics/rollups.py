"""Answers kept ready while rows come in: what dashboards ask again and again, a row per minute instead of millions.

A rollup is a table, and a view that fills it with every insert into its source. What was in the source before the
view was made is not in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_SUM: Final = "SimpleAggregateFunction(sum, UInt64)"
_WORD: Final = "LowCardinality(String)"
_SKETCH: Final = "quantilesTDigest{}(0.5, 0.95, 0.99)"


@dataclass(frozen=True)
class Rollup:
    name: str
    source: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    """Sorting key; rows with the same are merged."""
    select: str
    rest: str
    """Of the view's query, before and after `FROM`."""

    @property
    def view(self) -> str:
        return f"{self.name}_mv"


OPERATIONS_PER_MINUTE: Final = Rollup(
    "operations_per_minute",
    "operations",
    {
        "minute": "DateTime",
        "op": _WORD,
        "namespace": _WORD,
        "count": _SUM,
        "errors": _SUM,
        "duration": f"AggregateFunction({_SKETCH.format('')}, UInt64)",  # ns
    },
    ("minute", "op", "namespace"),
    "SELECT toStartOfMinute(time) AS minute, op, namespace, count() AS count, countIf(error != 0) AS errors, "
    f"{_SKETCH.format('State')}(duration) AS duration",
    "GROUP BY minute, op, namespace",
)
ERRORS_BY_USER: Final = Rollup(
    "errors_by_user",
    "operations",
    {"minute": "DateTime", "user": "String", "op": _WORD, "error": "UInt32", "count": _SUM},
    ("minute", "user", "op", "error"),
    "SELECT toStartOfMinute(time) AS minute, user, op, error, count() AS count",
    "WHERE error != 0 GROUP BY minute, user, op, error",
)
ROLLUPS: Final = (OPERATIONS_PER_MINUTE, ERRORS_BY_USER)
