"""A Lua script, and commands as the bytes that travel."""

import hashlib
from collections.abc import Sequence
from typing import Final

from hiredis import pack_command

Argument = bytes | str | int | float


def pack(*command: Argument) -> bytes:
    """A command as it travels (RESP arrays of bulk strings)."""
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # the stub knows only one-word commands
    return packed


ASKING: Final = pack("ASKING")
PING: Final = pack("PING")


class Script:
    """Knows its text and the SHA-1 by which servers know it; made once, at import or start."""

    __slots__ = ("load", "sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.load: Final = pack("SCRIPT", "LOAD", text)

    def call(self, key: bytes, args: Sequence[Argument]) -> bytes:
        """The packed EVALSHA with this one key."""
        return pack("EVALSHA", self.sha, 1, key, *args)
