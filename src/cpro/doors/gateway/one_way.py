"""A unidirectional WebSocket: one connect request (in the URL, or as the first message), then pushes only.

What a client sends after its connect request nobody reads: Centrifugo doesn't, so it isn't sent on either.
"""

from collections.abc import Callable
from typing import Final

from cpro._fast.http1 import build_status
from cpro._fast.wsframe import TEXT, build_frame
from cpro.doors.gateway.dialects import TOO_MANY_REQUESTS, OneWay, read_connect
from cpro.doors.gateway.websocket import WebSocketTap

BAD_REQUEST: Final = (3501, "bad request")
_dialect = OneWay()


class OneWayTap(WebSocketTap):
    """Call `start` once it has its session."""

    _dial: Callable[[], object] | None = None
    _has_asked = False

    def start(self, asked: bytes, dial: Callable[[], object]) -> None:
        """`asked`: what the URL asks, read by `read_connect`; empty where a message will. `dial` connects `far`."""
        if not asked:
            dial()
            return
        self._dial, self._has_asked = dial, True
        self.session.on_message(_dialect.commands(asked))

    def _on_message(self, payload: bytes) -> None:
        if self._has_asked:
            return
        self._has_asked = True
        try:
            asked = read_connect(payload)
        except ValueError:
            self._close_client(BAD_REQUEST[0], BAD_REQUEST[1].encode())
            return
        self.session.on_message(_dialect.commands(asked))

    def _hear(self, payload: bytes) -> None:
        super()._hear(_dialect.replies(payload))

    def _replies_of(self, payload: bytes) -> bytes:
        return _dialect.replies(payload)

    def _payload_of(self, replies: bytes) -> bytes:
        return _dialect.content(replies)

    # -- what the session wants

    def forward(self, payload: bytes) -> None:
        dial, self._dial = self._dial, None
        if dial is not None:  # the request for the upgrade says it
            dial()
        else:
            super().forward(_dialect.request(payload))

    def refuse_connect(self, reply: bytes) -> None:
        if self._is_open:
            self._held.clear()
            self.disconnect(*TOO_MANY_REQUESTS)
        else:
            self.on_not_upgraded(build_status(503, False))
            self.end()

    def disconnect(self, code: int, reason: str) -> None:
        """Centrifugo says it in a push and in the close frame."""
        if self._is_open and not self._is_closing and self._scan.is_between_messages:
            self._write(build_frame(TEXT, _dialect.disconnect(code, reason)))
        super().disconnect(code, reason)
