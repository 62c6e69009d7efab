"""What the gateway knows of its sessions, for analytics and user status: who came, is here, and left.

A connection leaves a row when it opens and then one in every snapshot, and so does each of its subscriptions. While
it is open its user is online.
"""

from collections.abc import Callable, Iterable
from typing import Final

from cpro._fast.command import Command
from cpro._fast.http1 import Request
from cpro._fast.replies import Reply as Said
from cpro.clock import boot_ns, unix_seconds
from cpro.doors.claims import Tell
from cpro.doors.gateway.session import About, Asked, Session
from cpro.doors.rows import BY_CLIENT, Recording, headers_reader
from cpro.operation import Operation, Reply, Verdict

See = Callable[[str], object]
"""Told that a user is online."""

_NO_HEADERS: Final[dict[str, list[str]]] = {}


class Books:
    """A worker's; an `Observer` of its sessions. Settings change by `configure`, what is open stays open."""

    def __init__(self) -> None:
        self._open: dict[Session, set[str]] = {}  # with the channels each has subscribed to
        self._recording: Recording | None = None
        self._see: See | None = None
        self._headers_of: Callable[[Request], dict[str, list[str]]] | None = None

    def configure(self, recording: Recording | None, see: See | None) -> None:
        """What is recorded, and who hears of users; None: nobody wants to know."""
        self._recording = recording
        self._see = see
        wants_headers = recording is not None and recording.connection is not None and recording.headers
        self._headers_of = headers_reader(recording.headers) if recording is not None and wants_headers else None

    def about(self, request: Request, transport: str) -> About:
        """To be kept with the session that a request opens."""
        return About(transport, self._headers_of(request) if self._headers_of is not None else _NO_HEADERS)

    # -- the observer

    def on_open(self, session: Session, connect: Command, said: Said) -> None:
        about = session.about
        about.name, about.version, about.made_s = connect.name, connect.version, unix_seconds()
        self._open[session] = set(said.subs)
        self._tell_of(session, boot_ns())

    def on_close(self, session: Session, code: int, reason: str) -> None:
        if self._open.pop(session, None) is None:
            return
        recording = self._recording
        if recording is not None and recording.operation is not None:
            operation = Operation("disconnect", session.client, session.user, started_ns=boot_ns())
            recording.operation(operation, Verdict.ADMITTED, Reply(b"", disconnect=code), 0)

    def on_subscribed(self, session: Session, channel: str) -> None:
        if session in self._open:
            self._open[session].add(channel)
        recording = self._recording
        if recording is not None and recording.subscription is not None:
            recording.subscription(session.client, session.user, channel, boot_ns())

    def on_unsubscribed(self, session: Session, channel: str) -> None:
        if session in self._open:
            self._open[session].discard(channel)

    # -- what is open

    def snapshot(self) -> Iterable[None]:
        """Record everything that is open; a step for each session, so that the caller may take a rest."""
        for session in list(self._open):
            if session in self._open:
                self._tell_of(session, boot_ns())
            yield

    def keep_online(self) -> Iterable[None]:
        """Say of every session's user that it is online; in steps, too."""
        for session in list(self._open):
            if self._see is not None and session.user:
                self._see(session.user)
            yield

    def _tell_of(self, session: Session, at_ns: int) -> None:
        recording = self._recording
        if recording is None:
            return
        about = session.about
        if recording.connection is not None:
            names = (about.name, about.version, about.transport, "protobuf" if session.protobuf else "json")
            recording.connection(
                session.client, session.user, names, about.headers, at_ns, session.latency_ns, about.made_s
            )
        if recording.subscription is not None:
            for channel in self._open[session]:
                recording.subscription(session.client, session.user, channel, at_ns)


def tells_of(kind: str, recording: Recording | None) -> list[Tell]:
    """Who records the commands of one kind."""
    if recording is None:
        return []
    tells: list[Tell | None] = [recording.call if kind == "rpc" else recording.operation]
    if kind == "connect" and recording.operation is not None:
        tells.insert(0, _connecting(recording.operation))
    if kind in ("publish", "map_publish") and recording.publication is not None:
        tells.append(_publishing(recording))
    return [tell for tell in tells if tell is not None]


def _connecting(record: Tell) -> Tell:
    """A connect is two operations, as in Centrifugo PRO: what decides about it, and the connection that comes of it."""

    def tell(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        begun = Operation("connecting", operation.client, operation.user, started_ns=operation.started_ns)
        record(begun, verdict, reply, duration_ns)

    return tell


def _publishing(recording: Recording) -> Tell:
    record = recording.publication
    assert record is not None, "asked for by whoever records publications"  # noqa: S101

    def tell(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        if reply.error or reply.disconnect:
            return
        asked: Asked = operation.noted
        at_ns = operation.started_ns + duration_ns
        record(operation.channel, BY_CLIENT, asked.command.data_size, operation.client, operation.user, at_ns)

    return tell
