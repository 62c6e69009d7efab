"""How each kind of command is treated at the gateway: charged, passed on to Centrifugo, recorded with its reply."""

from collections.abc import Callable, Mapping

from cpro.doors.claims import Charge
from cpro.doors.gateway.session import Asked, Established
from cpro.operation import OPERATIONS, TOO_MANY_REQUESTS, Operation, Reply, Verdict
from cpro.pipeline import Handle, Lane, Respond

RecordOf = Callable[[str], Callable[[Operation, Verdict, Reply, int], object]]
"""`Lane.record` of one kind of operation."""
Wait = Callable[..., None]
"""`SharedGate.wait`."""


def build_lanes(
    charge: Charge, wait: Wait, record_of: RecordOf, own: Mapping[str, Handle]
) -> tuple[dict[str, Lane], Lane]:
    """Lanes by kind, those of `own` RPC methods as `rpc <method>`; and that of a connect whose user is unknown yet."""

    def lane(kind: str, handle: Handle, user_of: Callable[[Reply], str | None] | None = None) -> Lane:
        return Lane(charge, handle, TOO_MANY_REQUESTS, record_of(kind), admit_later=wait, user_of=user_of)

    lanes = {kind: lane(kind, _pass_on) for kind in OPERATIONS}
    lanes["connect"] = lane("connect", _send_connect)
    lanes |= {f"rpc {method}": lane("rpc", handle) for method, handle in own.items()}
    return lanes, lane("connect", _send_connect, _established)


def _pass_on(operation: Operation, asked: Asked, respond: Respond) -> None:
    asked.session.pass_on(asked, respond)


def _send_connect(operation: Operation, asked: Asked, respond: Respond) -> None:
    asked.session.send_connect(asked, respond)


def _established(reply: Reply) -> str | None:
    return reply.user if isinstance(reply, Established) else None
