"""Who is told of a finished operation beside the metrics: chosen when settings are put in force, not per request."""

from collections.abc import Callable, Sequence

from cpro.doors.claims import Record, Tell
from cpro.operation import Operation, Reply, Verdict

Interest = Callable[[str], Sequence[Tell]]
"""Who of a feature wants to be told of one event's operations, those included that plugins take."""

_ADMITTED, _FAILED = Verdict.ADMITTED, Verdict.FAILED


def telling(record: Record, fault: Reply, told: Sequence[Tell]) -> Tell:
    """A lane's `record`: counts with `record`, and tells all others; `fault` is the reply that means a failure."""
    if not told:
        return _counting(record, fault)
    return _counting_and_telling(record, fault, told[0] if len(told) == 1 else _telling_all(tuple(told)))


def _counting(record: Record, fault: Reply) -> Tell:
    def count(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        record(_FAILED if reply is fault and verdict is _ADMITTED else verdict, duration_ns)

    return count


def _counting_and_telling(record: Record, fault: Reply, tell: Tell) -> Tell:
    def count_and_tell(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        verdict = _FAILED if reply is fault and verdict is _ADMITTED else verdict
        record(verdict, duration_ns)
        tell(operation, verdict, reply, duration_ns)

    return count_and_tell


def _telling_all(told: tuple[Tell, ...]) -> Tell:
    def tell_all(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        for tell in told:
            tell(operation, verdict, reply, duration_ns)

    return tell_all
