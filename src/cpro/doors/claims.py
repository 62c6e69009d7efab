"""What plugins add to a door: operations that take some of its events, users of connects, and eyes on all of them.

Resolved when settings are put in force: an event that nobody claims has the plain lane and knows nothing of this.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from cpro import pipeline
from cpro._fast.http1 import Request
from cpro.operation import UNREADABLE, Operation, Reply, Verdict
from cpro.pipeline import Handle, Lane, Respond

Charge = Callable[..., Verdict | None]
"""`Gate.charge` or `Gate.charge_scoped`."""
Record = Callable[[Verdict, int], None]
"""Counts one finished operation: what became of it, and its duration in ns."""
Tell = Callable[[Operation, Verdict, Reply, int], object]
"""Told of a finished operation before its reply leaves: reply, duration in ns. Must neither block nor raise."""


class Claim(Protocol):
    """What an operation type of a plugin takes of one event."""

    @property
    def name(self) -> str:
        """Of the operation in limits and metrics."""

    @property
    def event(self) -> str: ...

    @property
    def methods(self) -> frozenset[str]: ...

    @property
    def namespaces(self) -> frozenset[str]:
        """Of RPC methods. Neither these nor methods: the whole event."""

    @property
    def charge(self) -> Charge: ...

    def widen(self, operation: Operation, request: Request) -> Operation:
        """The operation as the plugin sees it, under its own name; msgspec.DecodeError where it isn't Centrifugo's."""

    def handler(self, passed_on: Handle, fault: Reply) -> Handle:
        """`passed_on` does what the plugin doesn't want to, `fault` is answered when it fails."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim with the lane its operations take, and what answers an event that can't be read."""

    claim: Claim
    lane: Lane
    joined: Lane
    """The lane of what comes through a gateway."""
    refuse_invalid: Callable[[Operation, Exception], Reply]


@dataclass(frozen=True, slots=True)
class Added:
    """Everything that plugins add to one door."""

    claims: tuple[Claim, ...] = ()
    namespace_of: Callable[[str], str] = field(default=lambda method: "")
    """The namespace of an RPC method."""
    identify: Handle | None = None
    """Answers connects that go to no backend."""
    observe: Tell | None = None


NOTHING_ADDED = Added()


def answering(own: Mapping[str, Handle], otherwise: Handle) -> Handle:
    """The handler of RPCs, some methods of which cpro answers itself."""
    find = own.get

    def handle(operation: Operation, request: Request, respond: Respond) -> Reply | None:
        return find(operation.method, otherwise)(operation, request, respond)

    return handle


class Dispatch:
    """Stands in for `pipeline.run` at an event of which plugins take some: exact methods, namespaces, then all."""

    def __init__(
        self, claimed: Iterable[Claimed], namespace_of: Callable[[str], str], joined: Lane | None = None
    ) -> None:
        """`joined` is the plain lane of what comes through a gateway."""
        self._joined = joined
        self._by_method: dict[str, Claimed] = {}
        self._by_namespace: dict[str, Claimed] = {}
        self._whole: Claimed | None = None
        self._namespace_of = namespace_of
        for one in claimed:
            self._by_method.update(dict.fromkeys(one.claim.methods, one))
            self._by_namespace.update(dict.fromkeys(one.claim.namespaces, one))
            if not one.claim.methods and not one.claim.namespaces:
                self._whole = one

    def __call__(self, lane: Lane, operation: Operation, request: Request, respond: Respond) -> Reply | None:
        claimed = self._find(operation.method)
        if claimed is None:
            return pipeline.run(lane, operation, request, respond)
        try:
            wide = claimed.claim.widen(operation, request)
        except UNREADABLE as error:
            return claimed.refuse_invalid(operation, error)
        return pipeline.run(claimed.joined if lane is self._joined else claimed.lane, wide, request, respond)

    def _find(self, method: str) -> Claimed | None:
        found = self._by_method.get(method) or self._by_namespace.get(self._namespace_of(method))
        return found or self._whole


def user_reply(user: str) -> Reply:
    """Answers a connect: this is the user; an empty one is let in anonymously."""
    return Reply(msgspec.json.encode({"result": {"user": user}}))
