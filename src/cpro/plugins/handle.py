"""Operation types at work: what a door claims for them, and how their handlers answer."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cpro.doors.answers import read_answer, read_connect_answer
from cpro.doors.claims import Charge, user_reply
from cpro.extension import Identify, OperationType, PluginOperation
from cpro.operation import BAD_REQUEST, EMPTY, INTERNAL_ERROR, UNREADABLE, Operation, Reply
from cpro.pipeline import Handle, Respond
from cpro.plugins.calls import Calls, call

if TYPE_CHECKING:
    from cpro._fast.http1 import Request


class _Body(msgspec.Struct, gc=False):
    """What a plugin may want to know of an event beside what limits need (Centrifugo's proxy protocol)."""

    transport: str = ""
    protocol: str = ""
    encoding: str = ""
    data: msgspec.Raw = msgspec.Raw()
    b64data: str = ""
    meta: msgspec.Raw = msgspec.Raw()
    key: str = ""
    name: str = ""
    version: str = ""
    channels: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(_Body).decode


def widen(operation: Operation, name: str, request: "Request") -> PluginOperation:
    """The operation as plugins see it, named `name`; msgspec.DecodeError where its body isn't Centrifugo's."""
    body = _decode(request.body)
    try:
        data = base64.b64decode(body.b64data, validate=True) if body.b64data else bytes(body.data)
    except ValueError as error:
        raise msgspec.DecodeError("b64data isn't base64") from error
    return PluginOperation(
        name,
        operation.client,
        operation.user,
        operation.channel,
        operation.method,
        operation.address,
        operation.started_ns,
        operation.noted,
        event=operation.kind,
        transport=body.transport,
        protocol=body.protocol,
        encoding=body.encoding,
        data=data,
        meta=bytes(body.meta),
        key=body.key,
        sdk=body.name,
        sdk_version=body.version,
        channels=body.channels,
        request=request,
    )


@dataclass(frozen=True, slots=True)
class TypeClaim:
    """What one operation type takes of one event; a `doors.claims.Claim`."""

    plugin: str
    type: OperationType
    event: str
    charge: Charge
    calls: Calls
    methods: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.type.name

    def widen(self, operation: Operation, request: "Request") -> PluginOperation:
        wide = widen(operation, self.name, request)
        if self.type.scope is not None:
            self._set_scope(wide, self.type.scope)
        return wide

    def handler(self, passed_on: Handle, fault: Reply) -> Handle:
        read = read_connect_answer if self.event == "connect" else read_answer
        return _TypeHandle(self, passed_on, fault, read)

    def fail(self, error: BaseException, place: str = "handle") -> None:
        """Tell of something the type did wrong."""
        self.calls.failures.tell(self.plugin, f"{self.name} {place}", error)

    def _set_scope(self, operation: PluginOperation, scope_of: Callable[[PluginOperation], str]) -> None:
        try:
            scope = scope_of(operation)
            if not isinstance(scope, str):
                raise TypeError(f"scope must be text, not {type(scope).__name__}")
            scope.encode()
            operation.scope = scope
        except Exception as error:  # whatever a plugin may raise
            operation.failed = True
            self.fail(error, "scope")


class _TypeHandle:
    """The `pipeline.Handle` of one claim."""

    def __init__(self, claim: TypeClaim, passed_on: Handle, fault: Reply, read: Callable[[bytes], Reply]) -> None:
        self._claim = claim
        self._passed_on = passed_on
        self._fault = fault
        self._read = read

    def __call__(self, operation: Operation, request: "Request", respond: Respond) -> Reply | None:
        assert isinstance(operation, PluginOperation)  # noqa: S101 -- `widen` made it
        if operation.failed:
            return self._fault
        work = call(self._claim.type.handle, operation)
        self._claim.calls.start(work, partial(self._on_done, operation, request, respond))
        return None

    def _on_done(
        self,
        operation: PluginOperation,
        request: "Request",
        respond: Respond,
        result: object,
        error: BaseException | None,
    ) -> None:
        if error is not None:
            self._claim.fail(error)
            respond(self._fault)
        elif result is not None:
            respond(self._understand(result))
        elif (reply := self._passed_on(operation, request, respond)) is not None:
            respond(reply)

    def _understand(self, result: object) -> Reply:
        """The reply, if it is one that Centrifugo can read."""
        try:
            if not isinstance(result, Reply):
                raise TypeError(f"must return a Reply or None, not {type(result).__name__}")
            if result.status != 200 or not isinstance(result.body, bytes):
                raise ValueError("must return a Reply with status 200 and bytes of JSON")
            return self._read(result.body)
        except (TypeError, ValueError, msgspec.DecodeError) as error:
            self._claim.fail(error)
            return self._fault


class _Identifier(NamedTuple):
    plugin: str
    find: Identify


class Identification:
    """The handler of connects that no backend takes: the first plugin that knows the user answers."""

    def __init__(self, identifiers: tuple[tuple[str, Identify], ...], calls: Calls) -> None:
        self._identifiers = [_Identifier(*one) for one in identifiers]
        self._calls = calls

    def __call__(self, operation: Operation, request: "Request", respond: Respond) -> Reply | None:
        try:
            wide = operation if isinstance(operation, PluginOperation) else widen(operation, operation.kind, request)
        except UNREADABLE:
            return BAD_REQUEST
        search = _Search(self._identifiers, wide)
        self._calls.start(search.run(), partial(self._on_done, search, respond))
        return None

    def _on_done(self, search: "_Search", respond: Respond, user: object, error: BaseException | None) -> None:
        if error is not None:
            self._calls.failures.tell(search.asked, "cpro_identify", error)
            respond(INTERNAL_ERROR)
        else:
            respond(EMPTY if user is None else user_reply(str(user)))


class _Search:
    """One connect's way from plugin to plugin; `asked` is the one that it is with."""

    def __init__(self, identifiers: list[_Identifier], connect: PluginOperation) -> None:
        self._identifiers = identifiers
        self._connect = connect
        self.asked = ""

    async def run(self) -> str | None:
        for plugin, find in self._identifiers:
            self.asked = plugin
            user = await call(find, self._connect)
            if user is not None:
                if not isinstance(user, str):
                    raise TypeError(f"must return a user's id or None, not {type(user).__name__}")
                user.encode()
                return user
        return None
