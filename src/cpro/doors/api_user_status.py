"""The API's methods about users' statuses, and what a client's own update is answered."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, Protocol

import msgspec

from cpro.clock import boot_ns
from cpro.doors.api_answers import INTERNAL_ERROR, NOT_AVAILABLE, ApiError
from cpro.doors.telling import Interest
from cpro.operation import PERMISSION_DENIED, Operation, Reply, Verdict
from cpro.pipeline import Handle, Respond

MOST_USERS: Final = 10_000
"""In one request."""
METHODS: Final = ("update_user_status", "get_user_status", "delete_user_status")
RPC_METHOD: Final = "update_user_status"
UPDATED: Final = Reply(b'{"result":{"data":{}}}')

Answer = Callable[[object], None]
"""Takes a result, or an ApiError."""
Record = Callable[[Verdict, int], None]
Times = tuple[int, int]


class Statuses(Protocol):
    """`LocalStatuses` or `SharedStatuses`."""

    def mark_active(self, user: str) -> None: ...

    def mark_online(self, user: str) -> None: ...

    def update(self, users: Sequence[str]) -> None: ...

    def ask(self, users: Sequence[str], tell: Callable[[list[Times] | None], None]) -> list[Times] | None: ...

    def forget(self, users: Sequence[str], tell: Callable[[bool | None], None]) -> bool | None: ...

    async def close(self) -> None: ...


class _Params(msgspec.Struct, gc=False):
    users: Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta(max_length=MOST_USERS)]


class _Status(msgspec.Struct, gc=False, omit_defaults=True):
    user: str
    active: int = 0
    online: int = 0


class _Statuses(msgspec.Struct, gc=False):
    statuses: list[_Status]


_decode: Final = msgspec.json.Decoder(_Params).decode
_NOTHING: Final[dict[str, object]] = {}


class _Method:
    """Decodes, counts, and words the answer."""

    def __init__(self, statuses: Statuses, record: Record) -> None:
        self._statuses = statuses
        self._record = record

    def __call__(self, params: bytes | msgspec.Raw, now_ns: int, answer: Answer) -> object | None:
        """The result, or an ApiError; None: `answer` hears later. Raises msgspec.DecodeError."""
        try:
            users = _decode(params).users
        except msgspec.DecodeError:
            self._record(Verdict.INVALID, 0)
            raise
        return self._do(users, now_ns, answer)

    def _do(self, users: list[str], now_ns: int, answer: Answer) -> object | None:
        raise NotImplementedError

    def _conclude(self, result: object | None, now_ns: int) -> object:
        failed = result is None
        self._record(Verdict.FAILED if failed else Verdict.ADMITTED, max(0, boot_ns() - now_ns))
        return INTERNAL_ERROR if failed else result


class _Update(_Method):
    def _do(self, users: list[str], now_ns: int, answer: Answer) -> object:
        self._statuses.update(users)
        return self._conclude(_NOTHING, now_ns)


class _Get(_Method):
    def _do(self, users: list[str], now_ns: int, answer: Answer) -> object | None:
        def tell(times: list[Times] | None) -> None:
            answer(self._word(users, times, now_ns))

        found = self._statuses.ask(users, tell)
        return None if found is None else self._word(users, found, now_ns)

    def _word(self, users: list[str], times: list[Times] | None, now_ns: int) -> object:
        if times is None:
            return self._conclude(None, now_ns)
        rows = [_Status(user, active, online) for user, (active, online) in zip(users, times, strict=True)]
        return self._conclude(_Statuses(rows), now_ns)


class _Delete(_Method):
    def _do(self, users: list[str], now_ns: int, answer: Answer) -> object | None:
        def tell(is_done: bool | None) -> None:
            answer(self._conclude(_NOTHING if is_done else None, now_ns))

        return self._conclude(_NOTHING, now_ns) if self._statuses.forget(users, tell) else None


class _Off:
    """A method of a feature that is switched off."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def __call__(self, params: bytes | msgspec.Raw, now_ns: int, answer: Answer) -> ApiError:
        self._record(Verdict.FAILED, 0)
        return NOT_AVAILABLE


def status_methods(statuses: Statuses | None, record: Callable[[str], Record]) -> dict[str, _Method | _Off]:
    """The API's methods by name; None: user status is off."""
    if statuses is None:
        return {name: _Off(record(name)) for name in METHODS}
    kinds = (_Update, _Get, _Delete)
    return {name: kind(statuses, record(name)) for name, kind in zip(METHODS, kinds, strict=True)}


def seeing(see: Callable[[str], None]) -> Interest:
    """`see` hears of the user of each operation, refused ones too; of a connect only when it is let in."""

    def tell(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        if operation.user:
            see(operation.user)

    def tell_of_connect(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        if operation.user and not reply.error and not reply.disconnect:
            see(operation.user)

    return lambda event: (tell_of_connect if event == "connect" else tell,)


def update_own_status(statuses: Statuses) -> Handle:
    """The handler of the RPC by which a user says: I am active."""
    mark = statuses.mark_active

    def handle(operation: Operation, request: object, respond: Respond) -> Reply:
        if not operation.user:
            return PERMISSION_DENIED
        mark(operation.user)
        return UPDATED

    return handle
