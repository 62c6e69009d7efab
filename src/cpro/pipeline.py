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


def never_waits(operation: Operation, decide: Callable[[Verdict], None], *, own_only: bool = False) -> None:
    """The `admit_later` of an `admit` that always decides."""
    raise AssertionError("an `admit` that does not always decide needs an `admit_later`")


@dataclass(frozen=True, slots=True)
class Lane:
    """How one kind of operation is treated at one door."""

    admit: Callable[[Operation, int], Verdict | None]
    """Charges the operation at a time in ns of `clock.boot_ns`; None: `admit_later` has to ask somebody."""
    handle: Handle
    refusal: Reply
    record: Callable[[Operation, Verdict, Reply, int], object]
    """Told of every finished operation: verdict, reply, duration in ns."""
    admit_later: Callable[[Operation, Callable[[Verdict], None]], None] = never_waits
    """Charges an operation that `admit` could not decide; the verdict comes after this has returned."""
    always: Reply | None = None
    """The reply where it is the same to every operation that is admitted: `handle` isn't asked."""
    user_of: Callable[[Reply], str | None] | None = None
    """Set where only the answer names the user (a connect): it is charged then, or not at all on None."""


def run(lane: Lane, operation: Operation, request: object, respond: Respond) -> Reply | None:
    """Walk `operation` down its lane; None means that `respond` will get the reply."""
    if lane.user_of is not None:
        return _run_connect(lane, operation, request, respond)
    verdict = lane.admit(operation, operation.started_ns)
    if verdict is None:
        lane.admit_later(operation, partial(_go_on, lane, operation, request, respond))
        return None
    if verdict is _REFUSED:
        return _finish(lane, operation, verdict, lane.refusal)
    reply = lane.always
    if reply is None:
        reply = lane.handle(operation, request, partial(_finish_later, lane, operation, verdict, respond))
    return None if reply is None else _finish(lane, operation, verdict, reply)


def _go_on(lane: Lane, operation: Operation, request: object, respond: Respond, verdict: Verdict) -> None:
    """The rest of the way for an operation that had to wait for its verdict."""
    reply: Reply | None = lane.refusal
    if verdict is not _REFUSED:
        reply = lane.handle(operation, request, partial(_finish_later, lane, operation, verdict, respond))
    if reply is not None:
        _finish_later(lane, operation, verdict, respond, reply)


def _run_connect(lane: Lane, operation: Operation, request: object, respond: Respond) -> Reply | None:
    """The same for what can only be charged once the answer is known."""
    reply = lane.handle(operation, request, partial(_settle_later, lane, operation, respond))
    return None if reply is None else _settle(lane, operation, respond, reply)


def _settle_later(lane: Lane, operation: Operation, respond: Respond, reply: Reply) -> None:
    settled = _settle(lane, operation, respond, reply)
    if settled is not None:
        respond(settled)


def _settle(lane: Lane, operation: Operation, respond: Respond, reply: Reply) -> Reply | None:
    """Charge the user that the answer names; a refusal replaces it."""
    user = lane.user_of(reply) if lane.user_of else None
    if user is None:
        return _finish(lane, operation, _ADMITTED, reply)
    operation.user = user
    verdict = lane.admit(operation, boot_ns())
    if verdict is None:
        lane.admit_later(operation, partial(_conclude, lane, operation, respond, reply))
        return None
    return _finish(lane, operation, verdict, lane.refusal if verdict is _REFUSED else reply)


def _conclude(lane: Lane, operation: Operation, respond: Respond, reply: Reply, verdict: Verdict) -> None:
    _finish_later(lane, operation, verdict, respond, lane.refusal if verdict is _REFUSED else reply)


def _finish_later(lane: Lane, operation: Operation, verdict: Verdict, respond: Respond, reply: Reply) -> None:
    lane.record(operation, verdict, reply, boot_ns() - operation.started_ns)
    respond(reply)


def _finish(lane: Lane, operation: Operation, verdict: Verdict, reply: Reply) -> Reply:
    lane.record(operation, verdict, reply, boot_ns() - operation.started_ns)
    return reply
