"""The leg to Centrifugo: what becomes of a request that is answered late, or not at all."""

from typing import Any
from unittest.mock import Mock

import pytest

from cpro.doors.gateway.door import GatewayDoor
from cpro.doors.gateway.far import ANSWER_WAIT_S, FarLeg
from tests.support.gateway import ScriptedTransport

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


class Scene:
    """A leg that its door has dialled, whose tap and timer are a test's."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.centrifugo = ScriptedTransport()
        self.timers: list[float] = []
        self.leg = FarLeg(self, b"GET / HTTP/1.1\r\n\r\n")
        others: Any = Mock()
        door = GatewayDoor(lambda leg, *_: leg.connection_made(self.centrifugo), self.call_later, *[others] * 4)
        door.dial(self.leg, lambda: None)

    def call_later(self, delay_s: float, callback) -> "Scene":
        self.timers.append(delay_s)
        self.ring = callback
        return self

    def cancel(self) -> None:
        self.timers.pop()

    def on_upgraded(self, head: bytes, rest: bytes) -> None:
        self.heard.append(("upgraded", head))

    def on_not_upgraded(self, answer: bytes) -> None:
        self.heard.append(("not upgraded", answer.partition(b"\r\n")[0]))

    def on_far_data(self, data: bytes) -> None:
        self.heard.append(("data", data))

    def on_far_lost(self) -> None:
        self.heard.append(("lost", b""))


@pytest.mark.parametrize("begun", [b"", UPGRADED[:-1], b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nhalf"])
def test_what_is_not_answered_in_time_is_a_gateway_timeout(begun: bytes):
    scene = Scene()
    scene.leg.data_received(begun)
    assert scene.timers == [ANSWER_WAIT_S]
    scene.ring()
    scene.leg.connection_lost(None)
    assert scene.heard == [("not upgraded", b"HTTP/1.1 504 Gateway Timeout")]
    assert scene.centrifugo.is_closed


@pytest.mark.parametrize("end", ["upgraded", "lost", "refused", "closed"])
def test_what_is_answered_or_over_is_not_timed_any_more(end: str):
    scene = Scene()
    match end:
        case "upgraded":
            scene.leg.data_received(UPGRADED)
        case "lost":
            scene.leg.connection_lost(None)
        case "refused":
            scene.leg.data_received(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        case _:
            scene.leg.close()
    assert scene.timers == []
