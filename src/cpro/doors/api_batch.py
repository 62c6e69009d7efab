"""The API's `batch`: several commands, those of cpro's own among those that go on to Centrifugo.

A run of commands that go on is one batch of Centrifugo's, so its order and its `parallel` are Centrifugo's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby

import msgspec

from cpro._fast.http1 import Response
from cpro.doors.api_answers import BAD_REQUEST, INTERNAL_ERROR, NOT_FOUND, ApiError
from cpro.doors.api_methods import Method, call
from cpro.doors.api_pass_on import PassOn
from cpro.doors.api_publications import PUBLISHING, tell_of_result
from cpro.doors.api_steps import Replies, Step, Steps
from cpro.operation import EMPTY, Reply

Command = dict[str, msgspec.Raw]
"""A method with its parameters."""


class Batch(msgspec.Struct, gc=False):
    """What Centrifugo's batch takes."""

    commands: list[Command | None] | None = None
    parallel: bool | None = False


class _Replies(msgspec.Struct, gc=False):
    replies: list[msgspec.Raw] = []


decode_batch = msgspec.json.Decoder(Batch).decode
_decode_replies = msgspec.json.Decoder(_Replies).decode
_decode_reply = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def tell_of_batch(commands: Sequence[Command | None], pass_on: PassOn, answer: bytes) -> None:
    """Tell of the publications that a batch has made, by its answer."""
    if pass_on.on_publication is None:
        return
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        _tell(commands, _decode_replies(answer).replies, pass_on)


def is_all_foreign(batch: Batch, methods: Mapping[str, Method]) -> bool:
    """Whether nothing in it is ours: it can go on as it came."""
    return not any(_own_method(command, methods) for command in batch.commands or ())


def run_batch(
    batch: Batch,
    methods: Mapping[str, Method],
    pass_on: PassOn | None,
    now_ns: int,
    answer: Callable[[Reply], None],
) -> Reply | None:
    """The answer; None: `answer` hears it later."""
    steps = list(_steps(batch, methods, pass_on, now_ns))
    replies = Steps(steps, lambda done: answer(_word(done)), in_parallel=bool(batch.parallel)).start()
    return None if replies is None else _word(replies)


def _word(replies: Replies) -> Reply:
    return Reply(b'{"replies":[%b]}' % b",".join(replies)) if replies else EMPTY


def _steps(batch: Batch, methods: Mapping[str, Method], pass_on: PassOn | None, now_ns: int) -> Iterator[Step]:
    for method, group in groupby(batch.commands or (), key=lambda command: _own_method(command, methods)):
        commands = list(group)
        if not method:
            yield _foreign(commands, pass_on, is_parallel=bool(batch.parallel))
            continue
        for command in commands:
            yield _own(method, methods[method], (command or {})[method], now_ns)


def _own_method(command: Command | None, methods: Mapping[str, Method]) -> str:
    """The command's method if it is ours; Centrifugo looks for its own first."""
    if not command:
        return ""
    own = [name for name, params in command.items() if name in methods and bytes(params) != b"null"]
    return own[0] if len(own) == len(command) else ""


def _own(name: str, method: Method, params: msgspec.Raw, now_ns: int) -> Step:
    def step(hear: Callable[[Replies], None]) -> Replies | None:
        def word(outcome: object) -> Replies:
            reply = {"error": outcome} if isinstance(outcome, ApiError) else {name: outcome}
            return [msgspec.json.encode(reply)]

        outcome = call(name, method, params, now_ns, lambda later: hear(word(later)))
        return None if outcome is None else word(outcome)

    return step


def _foreign(commands: Sequence[Command | None], pass_on: PassOn | None, *, is_parallel: bool) -> Step:
    def step(hear: Callable[[Replies], None]) -> Replies | None:
        if pass_on is None:
            return _all_alike(NOT_FOUND, commands)

        def on_done(response: Response | None) -> None:
            hear(_read(response, commands, pass_on))

        pass_on.ask(b"/api/batch", msgspec.json.encode({"commands": commands, "parallel": is_parallel}), on_done)
        return None

    return step


def _read(response: Response | None, commands: Sequence[Command | None], pass_on: PassOn) -> Replies:
    if response is None or response.status != 200:
        is_bad = response is not None and response.status == 400
        return _all_alike(BAD_REQUEST if is_bad else INTERNAL_ERROR, commands)
    try:
        replies = _decode_replies(response.body).replies
    except (msgspec.DecodeError, UnicodeDecodeError):
        replies = []
    if len(replies) != len(commands):
        return _all_alike(INTERNAL_ERROR, commands)
    _tell(commands, replies, pass_on)
    return [bytes(reply) for reply in replies]


def _tell(commands: Sequence[Command | None], replies: Sequence[msgspec.Raw], pass_on: PassOn) -> None:
    if pass_on.on_publication is None:
        return
    for command, reply in zip(commands, replies, strict=False):
        for method, result in _decode_reply(reply).items():
            if method in PUBLISHING and command and method in command:
                tell_of_result(pass_on.on_publication, method, command[method], result)


def _all_alike(error: ApiError, commands: Sequence[object]) -> Replies:
    return [msgspec.json.encode({"error": error})] * len(commands)
