"""A map subscription is one thing to its user, but many subscribe commands: pages of state, then of the stream.

Only the first is charged. A continuation is one that the last reply for its channel asked for: it names the cursor of
that reply, or, after the last page, goes on to a later phase (phases count down to 0, live). Each reply is good for
one continuation, so that a client can't subscribe for free by naming a cursor.
"""

from cpro._fast.command import Command
from cpro._fast.replies import Reply

MOST = 128
"""Channels a client is remembered for; Centrifugo allows as many subscriptions."""


class Pages:
    """Of one session."""

    __slots__ = ("_offered",)

    def __init__(self) -> None:
        self._offered: dict[str, tuple[int, str]] | None = None  # channel -> phase and cursor of the last reply

    def is_continued(self, command: Command) -> bool:
        """Whether this subscribe goes on with what the last reply offered; it can't be offered twice."""
        if self._offered is None or command.channel not in self._offered:
            return False
        phase, cursor = self._offered.pop(command.channel)
        return command.cursor == cursor if cursor else not command.cursor and command.phase < phase

    def on_reply(self, channel: str, reply: Reply) -> None:
        """Centrifugo has answered a subscribe to a map."""
        if not (reply.cursor or reply.phase):
            return
        if self._offered is None:
            self._offered = {}
        if len(self._offered) < MOST:
            self._offered[channel] = (reply.phase, reply.cursor)
