"""What cpro reads of an event's body; everything else in it stays raw (Centrifugo's proxy protocol)."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec


class Event(msgspec.Struct, gc=False):
    client: str
    user: str = ""
    channel: str = ""
    method: str = ""


class ConnectEvent(Event, gc=False):
    """With what a client says of itself."""

    transport: str = ""
    protocol: str = ""
    name: str = ""
    version: str = ""


class PublishEvent(Event, gc=False):
    """With the payload, in one form or the other; of base64 only the length is looked at."""

    data: msgspec.Raw = msgspec.Raw()
    b64data: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """How one event is read."""

    decode: Callable[[bytes], Event]
    """Raises one of `operation.UNREADABLE`."""
    is_noted: bool = False
    """Whether event and request are kept until the operation is over: `noted` of the operation is the two."""


LEAST = Reading(msgspec.json.Decoder(Event).decode)
CONNECT = msgspec.json.Decoder(ConnectEvent).decode
PUBLISH = msgspec.json.Decoder(PublishEvent).decode


def read_plainly(event: str) -> Reading:
    """For every event, no more than limits need."""
    return LEAST
