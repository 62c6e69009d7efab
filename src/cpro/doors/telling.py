"""Who is told of a finished operation beside the metrics: chosen when settings are put in force, not per request."""

import logging
from collections.abc import Callable, Sequence
from functools import reduce

from cpro.doors.claims import Record, Tell
from cpro.logs import Occasional
from cpro.operation import Operation, Reply, Verdict

log = logging.getLogger(__name__)

Interest = Callable[[str], Sequence[Tell]]
"""Who of a feature wants to be told of one event's operations, those included that plugins take."""

_ADMITTED, _FAILED = Verdict.ADMITTED, Verdict.FAILED
_occasional = Occasional(log)


def telling(record: Record, fault: Reply, told: Sequence[Tell]) -> Tell:
    """A lane's `record`: counts with `record`, and tells all others; `fault` is the reply that means a failure."""
    return _counting_and_telling(record, fault, reduce(_both, told)) if told else _counting(record, fault)


def _counting(record: Record, fault: Reply) -> Tell:
    def count(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        record(_FAILED if reply is fault and verdict is _ADMITTED else verdict, duration_ns)

    return count


def _counting_and_telling(record: Record, fault: Reply, tell: Tell) -> Tell:
    def count_and_tell(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        verdict = _FAILED if reply is fault and verdict is _ADMITTED else verdict
        record(verdict, duration_ns)
        try:
            tell(operation, verdict, reply, duration_ns)
        except Exception as error:  # a plugin may have changed the operation in any way; the user is to be answered
            _occasional.warning("", "operation can't be told of", op=str(operation.kind), error=str(error))

    return count_and_tell


def _both(first: Tell, second: Tell) -> Tell:
    def tell_both(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        first(operation, verdict, reply, duration_ns)
        second(operation, verdict, reply, duration_ns)

    return tell_both
