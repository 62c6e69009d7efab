"""Which rows of analytics an event of Centrifugo's leaves, and what has to be read of it for them.

Resolved when settings are put in force: for a table that is not exported nothing is read, and nothing called.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from cpro._fast.http1 import Request
from cpro.clock import boot_ns
from cpro.doors.answers import PLAIN, base64_bytes, channels_of, is_success, published_bytes
from cpro.doors.claims import Tell
from cpro.doors.events import CONNECT, LEAST, PUBLISH, ConnectEvent, PublishEvent, Reading
from cpro.doors.proxy import SECRET_HEADER
from cpro.operation import Operation, Reply, Verdict

PUBLISHES = frozenset({"publish", "map_publish"})
BY_CLIENT, BY_API = "client", "api"
"""Sources of publications."""


RecordConnection = Callable[[str, str, tuple[str, str, str, str], dict[str, list[str]], int, int, int], object]
"""Takes client, user, (name, version, transport, protocol), headers, the time of `clock.boot_ns`, latency in ns (0:
unknown), and when it was made in Unix seconds (0: now)."""
RecordSubscription = Callable[[str, str, str, int], object]
"""Takes client, user, channel, time."""
RecordPublication = Callable[[str, str, int, str, str, int], object]
"""Takes channel, source, size in bytes, client, user, time."""


class Recording(Protocol):
    """Functions that record one row each (`analytics.recorder`); None for a table that is not exported."""

    @property
    def operation(self) -> Tell | None: ...
    @property
    def call(self) -> Tell | None:
        """An operation whose namespace is that of an RPC method."""

    @property
    def connection(self) -> RecordConnection | None: ...
    @property
    def subscription(self) -> RecordSubscription | None: ...
    @property
    def publication(self) -> RecordPublication | None: ...
    @property
    def headers(self) -> tuple[str, ...]:
        """Names of headers that a connection's row has."""


class EventRows:
    """What one recording wants of the proxy door: `told` is an `Interest`."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def recording(self) -> Recording:
        """The same for other doors."""
        return self._recording

    def told(self, event: str) -> Sequence[Tell]:
        """Who records an event's operations."""
        recording = self._recording
        tells: list[Tell | None] = [recording.call if event == "rpc" else recording.operation]
        if event == "connect":
            tells.append(_connecting(recording))
        elif event == "subscribe" and recording.subscription is not None:
            tells.append(_subscribing(recording.subscription))
        elif event in PUBLISHES and recording.publication is not None:
            tells.append(_publishing(recording.publication))
        return [tell for tell in tells if tell is not None]

    @property
    def on_publication(self) -> Callable[[str, int], None] | None:
        """Records what a backend has published by the server API: takes channel and size in bytes."""
        record = self._recording.publication
        if record is None:
            return None

        def tell(channel: str, size: int) -> None:
            record(channel, BY_API, size, "", "", boot_ns())

        return tell

    def reading_of(self, event: str) -> Reading:
        if event == "connect" and self._recording.connection is not None:
            return Reading(CONNECT, is_noted=True)
        if event in PUBLISHES and self._recording.publication is not None:
            return Reading(PUBLISH, is_noted=True)
        return LEAST


def _subscribing(record: RecordSubscription) -> Tell:
    def tell(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        if is_success(reply):
            record(operation.client, operation.user, operation.channel, operation.started_ns + duration_ns)

    return tell


def _publishing(record: RecordPublication) -> Tell:
    def tell(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        if reply.error or reply.disconnect:
            return
        size = None if reply.body in PLAIN else published_bytes(reply)
        if size is None:
            event: PublishEvent = operation.noted[0]
            size = base64_bytes(event.b64data) if event.b64data else len(event.data)
        at_ns = operation.started_ns + duration_ns
        record(operation.channel, BY_CLIENT, size, operation.client, operation.user, at_ns)

    return tell


def _connecting(recording: Recording) -> Tell | None:
    connection, subscription = recording.connection, recording.subscription
    headers_of = headers_reader(recording.headers)
    if connection is None and subscription is None:
        return None

    def tell(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        channels = channels_of(reply)
        if channels is None:
            return
        at_ns = operation.started_ns + duration_ns
        if connection is not None:
            event, request = operation.noted
            connection(operation.client, operation.user, _about(event), headers_of(request), at_ns, 0, 0)
        if subscription is not None:
            for channel in channels:
                subscription(operation.client, operation.user, channel, at_ns)

    return tell


def _about(event: ConnectEvent) -> tuple[str, str, str, str]:
    return event.name, event.version, event.transport, event.protocol


def headers_reader(names: Sequence[str]) -> Callable[[Request], dict[str, list[str]]]:
    """Reads the headers of these names, all their values; what cpro's own secret travels in is nobody's."""
    wanted = [(name, key) for name in names if (key := name.lower().encode()) != SECRET_HEADER]

    def read(request: Request) -> dict[str, list[str]]:
        return {name: _values(request, key) for name, key in wanted if request.header(key) is not None}

    return read


def _values(request: Request, name: bytes) -> list[str]:
    return [value.decode(errors="replace") for key, value in request.headers() if key.lower() == name]
