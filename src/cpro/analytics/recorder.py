"""What happens, as rows: each function here appends one to the journal, and neither waits nor raises.

A `Recording` is bound to the settings in force; a reload makes another for the operations that begin then. What does
not change from row to row is not looked up per row: filters, namespaces and the time of day are bound or kept.
"""

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from cpro.analytics.schema import CONNECTIONS, OPERATIONS, PUBLICATIONS, SUBSCRIPTIONS
from cpro.clock import Seconds
from cpro.config.model import Exports
from cpro.operation import INTERNAL_ERROR, TOO_MANY_REQUESTS, Operation, Reply, Verdict

Append = Callable[[tuple[object, ...]], object]
"""`RowWriter.append` of one table: takes the values in the order of its columns."""
RecordOperation = Callable[[Operation, Verdict, Reply, int], object]
"""Takes an operation that is over, its verdict, its reply, and its duration in ns."""
RecordConnection = Callable[[str, str, tuple[str, str, str, str], dict[str, list[str]], int, int, int], object]
"""Takes client, user, (name, version, transport, protocol), headers, the time of `clock.boot_ns`, latency in ns (0:
unknown), and when it was made in Unix seconds (0: now)."""
RecordSubscription = Callable[[str, str, str, int], object]
"""Takes client, user, channel, time."""
RecordPublication = Callable[[str, str, int, str, str, int], object]
"""Takes channel, source (`client` or `api`), size in bytes, client, user, time."""
NamespaceOf = Callable[[str], str]
"""Of a channel, or of an RPC method."""

MOST_NAMES: Final = 4096
"""Channels or methods whose namespaces are kept; users may think of any number of them."""

_NO_LABELS: Final[dict[str, str]] = {}  # labels and metadata are Centrifugo PRO's own
_NO_METADATA: Final[dict[str, list[str]]] = {}
_TAILS: Final = tuple(f"{tail:02x}" for tail in range(256))


@dataclass(frozen=True, slots=True)
class Recording:
    """Functions that record one row each; None for a table that is not exported."""

    operation: RecordOperation | None = None
    call: RecordOperation | None = None
    """An operation whose namespace is that of an RPC method."""
    connection: RecordConnection | None = None
    subscription: RecordSubscription | None = None
    publication: RecordPublication | None = None
    headers: tuple[str, ...] = ()
    """Names of headers that a connection's row has."""


class Recorder:
    """Makes the recordings of one worker."""

    def __init__(self, appends: Mapping[int, Append], node: str, seconds: Seconds) -> None:
        """`appends` by number of table; `node` is this node's label."""
        self._appends = appends
        self._node = node
        self._seconds = seconds
        self._uids = _uids()

    def recording(self, exports: Exports, of_channel: NamespaceOf, of_method: NamespaceOf) -> Recording:
        """What is recorded by these settings; `of_channel` and `of_method` find namespaces."""
        channels, methods = _Namespaces(of_channel), _Namespaces(of_method)
        operations, connections = exports.operations, exports.connections
        subscriptions, publications = exports.subscriptions, exports.publications
        users = operations.export_users
        return Recording(
            operation=_of_users(users, self._operation(channels)) if operations.enabled else None,
            call=_of_users(users, self._operation(methods)) if operations.enabled else None,
            connection=_only(1, connections.export_users, self._connection()) if connections.enabled else None,
            subscription=(
                _only(1, subscriptions.export_users, self._subscription(channels)) if subscriptions.enabled else None
            ),
            publication=(
                _only(0, publications.export_channels, self._publication(channels)) if publications.enabled else None
            ),
            headers=connections.http_headers,
        )

    def _operation(self, namespaces: "_Namespaces") -> RecordOperation:
        append, node, seconds = self._appends[OPERATIONS.number], self._node, self._seconds

        def record(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
            if operation.started_ns + duration_ns >= seconds.end_ns:
                seconds.turn()
            append((
                operation.client,
                operation.user,
                operation.kind,
                operation.channel,
                operation.method,
                reply.error if reply.status == 200 else _error_of(verdict),
                reply.disconnect,
                duration_ns,
                _NO_LABELS,
                namespaces[operation.method or operation.channel],
                node,
                seconds.now,
            ))  # fmt: skip

        return record

    def _connection(self) -> RecordConnection:
        append, node, seconds = self._appends[CONNECTIONS.number], self._node, self._seconds

        def record(
            client: str,
            user: str,
            about: tuple[str, str, str, str],
            headers: dict[str, list[str]],
            at_ns: int,
            latency_ns: int,
            made_s: int,
        ) -> None:
            if at_ns >= seconds.end_ns:
                seconds.turn()
            name, version, transport, protocol = about
            append((
                client, user, name, version, transport, headers, _NO_METADATA, _NO_LABELS, latency_ns, node, protocol,
                made_s or seconds.now, seconds.now,
            ))  # fmt: skip

        return record

    def _subscription(self, namespaces: "_Namespaces") -> RecordSubscription:
        append, node, seconds = self._appends[SUBSCRIPTIONS.number], self._node, self._seconds

        def record(client: str, user: str, channel: str, at_ns: int) -> None:
            if at_ns >= seconds.end_ns:
                seconds.turn()
            append((client, user, channel, namespaces[channel], node, seconds.now))

        return record

    def _publication(self, namespaces: "_Namespaces") -> RecordPublication:
        append, node, seconds = self._appends[PUBLICATIONS.number], self._node, self._seconds
        next_uid = self._uids.__next__

        def record(channel: str, source: str, size: int, client: str, user: str, at_ns: int) -> None:
            if at_ns >= seconds.end_ns:
                seconds.turn()
            append((next_uid(), channel, source, size, client, user, namespaces[channel], node, seconds.now))

        return record


class _Namespaces(dict[str, str]):
    """Namespaces by channel, or by method: found when first asked for."""

    def __init__(self, find: NamespaceOf) -> None:
        self._find = find

    def __missing__(self, name: str) -> str:
        if len(self) >= MOST_NAMES:
            self.clear()
        namespace = self[name] = self._find(name)
        return namespace


def _uids() -> Iterator[str]:
    """UUIDs of publications: random for the process, counted within it, which costs less to make and to store."""
    random = str(uuid.uuid4())[:24]
    for number in count():
        head = f"{random}{number:010x}"
        for tail in _TAILS:
            yield head + tail


def _error_of(verdict: Verdict) -> int:
    """The code that an answer would have which says everything by its HTTP status: Centrifugo asked, not the user."""
    return TOO_MANY_REQUESTS.error if verdict is Verdict.REFUSED else INTERNAL_ERROR.error


def _of_users(users: Collection[str], record: RecordOperation) -> RecordOperation:
    """Records the operations of these users; none means of all."""
    if not users:
        return record
    wanted = frozenset(users)

    def record_some(operation: Operation, verdict: Verdict, reply: Reply, duration_ns: int) -> None:
        if operation.user in wanted:
            record(operation, verdict, reply, duration_ns)

    return record_some


def _only(place: int, names: Collection[str], record: Callable[..., object]) -> Callable[..., object]:
    """Records what has one of these names as its argument at `place`; none means everything."""
    if not names:
        return record
    wanted = frozenset(names)

    def record_some(*values: Any) -> None:  # noqa: ANN401 -- whatever `record` takes
        if values[place] in wanted:
            record(*values)

    return record_some
