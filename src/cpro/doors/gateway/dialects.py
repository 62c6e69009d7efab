"""What a stream's client and Centrifugo say to each other, seen as commands and replies of the client protocol.

Clients of unidirectional transports speak it only halfway: they send one bare connect request, and get bare pushes. The
session is shown the commands and replies that these stand for.
"""

import json
from typing import Final, Protocol

from cpro._fast.commands import build_payload, parse_commands, without_dictionary
from cpro.doors.gateway.answers import build_disconnect


class Dialect(Protocol):
    is_one_way: bool

    def commands(self, said: bytes) -> bytes:
        """What a request says."""

    def request(self, commands: bytes) -> bytes:
        """What Centrifugo is sent for (some of) them."""

    def replies(self, content: bytes) -> bytes:
        """What Centrifugo says, for `parse_replies`."""

    def content(self, replies: bytes) -> bytes:
        """The same back."""

    def may_matter(self, content: bytes) -> bool:
        """Whether there can be anything in it that the session should hear, once it is open."""

    def disconnect(self, code: int, reason: str) -> bytes:
        """How a stream ends, where a WebSocket has its close frame."""

    def refusal(self, reply: bytes) -> bytes:
        """Instead of the reply to a connect: this error."""


class TwoWay:
    """The client protocol itself, of SSE and HTTP-stream."""

    is_one_way = False

    def __init__(self, *, protobuf: bool) -> None:
        self._protobuf = protobuf

    def commands(self, said: bytes) -> bytes:
        return said

    def request(self, commands: bytes) -> bytes:
        return commands

    def replies(self, content: bytes) -> bytes:
        return content

    def content(self, replies: bytes) -> bytes:
        return replies

    def may_matter(self, content: bytes) -> bool:
        return True

    def disconnect(self, code: int, reason: str) -> bytes:
        return build_disconnect(code, reason, protobuf=self._protobuf)

    def refusal(self, reply: bytes) -> bytes:
        return reply


_decode = json.JSONDecoder().raw_decode
_CONNECT: Final = b'{"id":1,"connect":'
_REPLY: Final = b'{"id":1,'
_PUSH: Final = b'{"push":'
_PING: Final = b"{}"
_SPACE: Final = " \t\r\n"
TOO_MANY_REQUESTS: Final = (3013, "too many requests")
"""What Centrifugo makes of error 111 where a client can't be told of errors."""


def read_connect(said: bytes) -> bytes:
    """A bare connect request as it may go on to Centrifugo; ValueError where it has no reading, or two.

    Centrifugo ignores what follows it, and takes null for an empty one."""
    text = said.decode("latin-1").lstrip(_SPACE)  # a character for each byte
    try:
        request, end = _decode(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if request is not None and not isinstance(request, dict):
        raise ValueError("is no object")
    bare = b"{}" if request is None else text[:end].encode("latin-1").replace(b"\n", b" ")
    payload = b"%b%b}" % (_CONNECT, bare)
    (command,) = parse_commands(payload, False)
    if command.fault or command.kind != "connect":
        raise ValueError("is ambiguous")
    if command.wants_dictionary:  # pushes would be opaque to us
        return without_dictionary(command)[len(_CONNECT) : -1]
    return build_payload(payload, [command], False)[len(_CONNECT) : -1]


class OneWay:
    """Of the unidirectional transports, which are JSON only; of requests that `read_connect` has read."""

    is_one_way = True

    def commands(self, said: bytes) -> bytes:
        return b"%b%b}" % (_CONNECT, said)

    def request(self, commands: bytes) -> bytes:
        return commands[len(_CONNECT) : -1]

    def replies(self, content: bytes) -> bytes:
        return b"\n".join(_as_reply(line) for line in content.split(b"\n") if line)

    def content(self, replies: bytes) -> bytes:
        return b"\n".join(_as_push(line) for line in replies.split(b"\n") if line)

    def may_matter(self, content: bytes) -> bool:
        return b'"unsubscribe":' in content or b'"disconnect":' in content

    def disconnect(self, code: int, reason: str) -> bytes:
        return json.dumps({"disconnect": {"code": code, "reason": reason}}, separators=(",", ":")).encode()

    def refusal(self, reply: bytes) -> bytes:
        return self.disconnect(*TOO_MANY_REQUESTS)


def _as_reply(line: bytes) -> bytes:
    if line.startswith(b'{"connect":'):
        return _REPLY + line[1:]
    return line if line == _PING else b"%b%b}" % (_PUSH, line)


def _as_push(line: bytes) -> bytes:
    if line.startswith(_REPLY):
        return b"{" + line[len(_REPLY) :]
    return line[len(_PUSH) : -1] if line.startswith(_PUSH) else line
