"""The corridor every operation walks: admit → handle → record.

No sockets, HTTP or Redis here: what differs between doors and operations comes in as a `Lane` of small callables,
bound once at load. A reply that is ready at once is returned; one that comes later goes to `respond`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cpro.clock import boot_ns
from cpro.operation import Operation, Reply, Verdict

_ADMITTED, _REFUSED = Verdict.ADMITTED, Verdict.REFUSED  # looking up an enum's member shows in a request's cost

Respond = Callable[[Reply], None]
"""Takes a reply that was not ready at once; called exactly once, never before `run` has returned."""

Handle = Callable[[Operation, Any, Respond], Reply | None]
"""Does what the operation asks for: the reply, or None when it goes to the `Respond` later. Between them stands the
door's own request, which only a handler made for that door looks into."""


@dataclass(frozen=True, slots=True)
class Lane:
    """How one kind of operation is treated at one door."""

    admit: Callable[[Operation, int], Verdict]
    """Charges the operation at a time in ns of `clock.boot_ns`."""
    handle: Handle
    refusal: Reply
    record: Callable[[Operation, Verdict, Reply, int], object]
    """Told of every finished operation: verdict, reply, duration in ns."""
    user_of: Callable[[Reply], str | None] | None = None
    """Set where only the answer names the user (a connect): it is charged then, or not at all on None."""


def run(lane: Lane, operation: Operation, request: object, respond: Respond) -> Reply | None:
    """Walk `operation` down its lane; None means that `respond` will get the reply."""
    if lane.user_of is not None:
        return _run_connect(lane, operation, request, respond)
    verdict = lane.admit(operation, operation.started_ns)
    if verdict is _REFUSED:
        return _finish(lane, operation, verdict, lane.refusal)
    reply = lane.handle(operation, request, partial(_finish_later, lane, operation, verdict, respond))
    return None if reply is None else _finish(lane, operation, verdict, reply)


def _run_connect(lane: Lane, operation: Operation, request: object, respond: Respond) -> Reply | None:
    """The same for what can only be charged once the answer is known."""
    reply = lane.handle(operation, request, lambda later: respond(_settle(lane, operation, later)))
    return None if reply is None else _settle(lane, operation, reply)


def _settle(lane: Lane, operation: Operation, reply: Reply) -> Reply:
    """Charge the user that the answer names; a refusal replaces it."""
    user = lane.user_of(reply) if lane.user_of else None
    if user is None:
        return _finish(lane, operation, _ADMITTED, reply)
    operation.user = user
    verdict = lane.admit(operation, boot_ns())
    return _finish(lane, operation, verdict, lane.refusal if verdict is _REFUSED else reply)


def _finish_later(lane: Lane, operation: Operation, verdict: Verdict, respond: Respond, reply: Reply) -> None:
    lane.record(operation, verdict, reply, boot_ns() - operation.started_ns)
    respond(reply)


def _finish(lane: Lane, operation: Operation, verdict: Verdict, reply: Reply) -> Reply:
    lane.record(operation, verdict, reply, boot_ns() - operation.started_ns)
    return reply
