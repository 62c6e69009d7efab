"""`POST /api`: commands that name their method, one or many in a body, each answered on a line of its own.

As Centrifugo does it: JSON texts one after the other, usually on lines; errors always in the envelope; a body with
anything that is not a command of a known method is 400 as a whole. Unlike there, nothing of such a body is carried out.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Annotated, Final

import msgspec

from cpro._fast.http1 import Response
from cpro.doors.api_answers import INTERNAL_ERROR, ApiError
from cpro.doors.api_methods import Method, call
from cpro.doors.api_pass_on import PassOn
from cpro.doors.api_publications import PUBLISHING, tell_of_answer
from cpro.doors.api_steps import Replies, Step, Steps
from cpro.operation import Reply


class Command(msgspec.Struct, gc=False):
    """One command."""

    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0


_decode: Final = msgspec.json.Decoder(Command).decode
_SPACE: Final = " \t\r\n"


def read_commands(body: bytes) -> list[tuple[Command, bytes]]:
    """The commands, each with its text; raises what is in `UNREADABLE`."""
    text = body.decode()  # msgspec would not look into parameters
    try:
        return [(_decode(body), body)]
    except msgspec.DecodeError:
        return [(_decode(part), part) for part in _parts(text)]


def _parts(text: str) -> Iterator[bytes]:
    """JSON texts that follow each other. Raises msgspec.DecodeError."""
    decoder = json.JSONDecoder()
    place = len(text) - len(text.lstrip(_SPACE))
    if place == len(text):
        raise msgspec.DecodeError("Expected a command")
    while place < len(text):
        try:
            _, end = decoder.raw_decode(text, place)
        except ValueError as error:
            raise msgspec.DecodeError(str(error)) from error
        yield text[place:end].encode()
        place = end
        while place < len(text) and text[place] in _SPACE:
            place += 1


def tell_of_lines(commands: Sequence[tuple[Command, bytes]], pass_on: PassOn, answer: bytes) -> None:
    """Tell of the publications that commands have made, by their answers, a line each."""
    if pass_on.on_publication is None:
        return
    for (command, _), line in zip(commands, answer.strip().split(b"\n"), strict=False):
        if command.method in PUBLISHING:
            tell_of_answer(pass_on.on_publication, command.method, command.params, line)


def run_legacy(
    commands: Sequence[tuple[Command, bytes]],
    methods: Mapping[str, Method],
    pass_on: PassOn | None,
    now_ns: int,
    answer: Callable[[Reply], None],
) -> Reply | None:
    """The answer; None: `answer` hears it later. Commands that are not ours need a `pass_on`."""
    refused: list[int] = []

    def word(replies: Replies) -> Reply:
        return Reply(b"", status=refused[0]) if refused else Reply(b"\n".join(replies))

    steps = list(_steps(commands, methods, pass_on, now_ns, refused.append))
    replies = Steps(steps, lambda done: answer(word(done)), in_parallel=False).start()
    return None if replies is None else word(replies)


def _steps(
    commands: Sequence[tuple[Command, bytes]],
    methods: Mapping[str, Method],
    pass_on: PassOn | None,
    now_ns: int,
    refuse: Callable[[int], None],
) -> Iterator[Step]:
    for is_own, group in groupby(commands, key=lambda one: one[0].method in methods):
        if is_own:
            for command, _ in group:
                yield _own(command, methods[command.method], now_ns)
        elif pass_on is not None:
            yield _foreign(list(group), pass_on, refuse)


def _own(command: Command, method: Method, now_ns: int) -> Step:
    def step(hear: Callable[[Replies], None]) -> Replies | None:
        outcome = call(command.method, method, command.params, now_ns, lambda later: hear(_word(command, later)))
        return None if outcome is None else _word(command, outcome)

    return step


def _word(command: Command, outcome: object) -> Replies:
    name = "error" if isinstance(outcome, ApiError) else "result"
    reply = {"id": command.id, name: outcome} if command.id else {name: outcome}
    return [msgspec.json.encode(reply)]


def _foreign(commands: list[tuple[Command, bytes]], pass_on: PassOn, refuse: Callable[[int], None]) -> Step:
    def step(hear: Callable[[Replies], None]) -> None:
        def on_done(response: Response | None) -> None:
            hear(_read(response, commands, pass_on, refuse))

        pass_on.ask(b"/api", b"\n".join(text for _, text in commands), on_done)

    return step


def _read(
    response: Response | None,
    commands: list[tuple[Command, bytes]],
    pass_on: PassOn,
    refuse: Callable[[int], None],
) -> Replies:
    if response is not None and response.status == 400:
        refuse(400)
        return []
    lines = [] if response is None or response.status != 200 else response.body.strip().split(b"\n")
    if response is None or len(lines) != len(commands):
        return [reply for command, _ in commands for reply in _word(command, INTERNAL_ERROR)]
    tell_of_lines(commands, pass_on, response.body)
    return lines
