"""The nouns that cpro and its plugins share; plugins import them from `cpro.plugins`."""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from logging import Logger
from typing import Any, Final, Protocol, TypeVar

import msgspec

from cpro.analytics.batch import Batch
from cpro.config.duration import Duration
from cpro.config.faults import nearest
from cpro.config.model import Settings
from cpro.errors import CproError, PluginError
from cpro.operation import Reply, ScopedOperation

T = TypeVar("T")


class Headers(Protocol):
    def header(self, name: bytes) -> bytes | None: ...


class PluginOperation(ScopedOperation, kw_only=True, gc=False):
    """What a user wants to do, as a plugin sees it. Texts are empty where Centrifugo sent none.

    Beside the fields here: `kind` (the operation type's name), `client` (id of the connection), `user` (empty for
    anonymous users, and in every connect), `channel`, `method`, `scope`.
    """

    event: str
    """Which of Centrifugo's proxy events it came as: connect, rpc, publish, …"""
    transport: str = ""
    """websocket, sse, http_stream, …"""
    protocol: str = ""
    """json or protobuf"""
    encoding: str = ""
    """json or binary"""
    data: bytes = b""
    """The payload as the client sent it: JSON text, or any bytes where `encoding` is binary."""
    meta: bytes = b""
    """Connection meta, JSON text, where Centrifugo has `include_connection_meta`."""
    key: str = ""
    """Of map_publish and map_remove."""
    sdk: str = ""
    """Of a connect: name and version that the client gives itself."""
    sdk_version: str = ""
    channels: tuple[str, ...] = ()
    """Of a connect: channels the client wants to be in at once."""
    request: Headers
    failed: bool = False
    """The plugin's scope raised: it is charged without one, and not handled."""

    def header(self, name: str) -> str | None:
        """A header of the client's connection, if Centrifugo's `http_headers` let it through."""
        value = self.request.header(name.lower().encode())
        return None if value is None else value.decode("utf-8", "replace")

    def read(self, kind: type[T]) -> T:
        """The payload as a typed value (msgspec's types); msgspec.DecodeError when it is something else."""
        try:
            return msgspec.json.decode(self.data, type=kind)
        except (RecursionError, UnicodeDecodeError) as error:
            raise msgspec.DecodeError(str(error)) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class OperationType:
    """Operations that a plugin handles, under a name of their own in limits and metrics."""

    name: str
    """Lower-case letters, digits and `_`; not one of Centrifugo's operations."""
    handle: Callable[[PluginOperation], Awaitable[Reply | None]]
    """Answers, or passes on to the backend with None. Cancelled after `proxy.upstream.timeout`."""
    methods: Collection[str] = ()
    """RPC methods it takes."""
    namespaces: Collection[str] = ()
    """RPC namespaces it takes with all their methods, but those that are some type's `methods`."""
    events: Collection[str] = ()
    """Events it takes wholly: connect, refresh, subscribe, publish, sub_refresh, rpc, map_publish, map_remove."""
    buckets: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Block -> buckets, written as in the configuration. They hold where that block has no entry for this name."""
    scope: Callable[[PluginOperation], str] | None = None
    """Keeps buckets of its own for each text it returns, beside each user; `default` and `total` are not split."""


class Finished(msgspec.Struct, frozen=True, gc=False):
    """An operation that is over, for observers."""

    door: str
    """proxy or gateway"""
    op: str
    client: str
    user: str
    channel: str
    method: str
    verdict: str
    """admitted, refused, dry_run or failed (docs/metrics.md)."""
    error: int
    """Code of the error that was answered, 0 for none; the same for `disconnect`."""
    disconnect: int
    duration_ns: int
    time: int
    """When it was over, in seconds since 1970."""


Identify = Callable[[PluginOperation], Awaitable[str | None] | str | None]
"""Finds the user of a connect: an id, an empty text to let it in anonymously, None for no opinion."""

Observe = Callable[[Sequence[Finished]], None]
"""Takes a batch of finished operations, in a thread of its own."""


BUILT_IN_SINK: Final = "clickhouse"
"""Name of the sink that is always there."""


class Sink(Protocol):
    """Where rows of analytics go, beside ClickHouse. All three are called in one thread, which is the sink's own.

    They may block: a sink that is slow, raises or hangs keeps its place in the journal and holds up nobody else. An
    attribute `name` names it in metrics and commands; without one it has the plugin's name. A sink that wants batches
    of another size has `flush_interval_s`, `flush_rows` or both.
    """

    def open(self) -> None:
        """Called until it returns, before anything is written; what it raises is logged, and it is tried again."""

    def write(self, batch: Batch) -> None:
        """Returning means that the batch is safely stored.

        SinkSplitError asks for the batch in halves, SinkRejectError has it set aside in a file; anything else it raises
        has the same rows sent under the same `id` again, for as long as it takes. An `id` that was written before
        holds the same rows: writing it once more must not double them.
        """

    def close(self) -> None:
        """Called once, when the service stops; not when it is killed."""


@dataclass(frozen=True, slots=True)
class PluginConfig:
    """What a plugin gets while it is collected, before any settings are in force."""

    plugin: str
    options: Mapping[str, Any]
    """From `plugins.<name>` of the configuration, as they stand there."""

    def read(self, kind: type[T]) -> T:
        """The options as a msgspec Struct; PluginError says what is wrong. `Duration` fields take `300ms`, `10s`."""
        place = f"plugins.{self.plugin}"
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            known = [one.encode_name for one in msgspec.structs.fields(kind)]
            for name in self.options:
                if name not in known:
                    best = nearest(str(name), known)
                    hint = f"the nearest is {best}" if best else f"known here: {', '.join(known) or 'none'}"
                    raise PluginError(self.plugin, f"{place}.{name}: is not a known option; {hint}")
        try:
            return msgspec.convert(dict(self.options), kind, dec_hook=_read_duration)
        except msgspec.ValidationError as error:
            text, _, path = str(error).partition(" - at `$")
            raise PluginError(self.plugin, f"{place}{path.rstrip('`')}: {text}") from None


def _read_duration(kind: type, value: object) -> object:
    if kind is not Duration:
        raise TypeError(f"{kind} can't be an option")
    if not isinstance(value, str):
        raise ValueError('must be a duration such as "300ms"')
    return Duration.parse(value)


class HttpError(CproError):
    """No answer from an HTTP server; says why."""


class HttpEndpoint(Protocol):
    """One URL, spoken to over pooled keep-alive connections."""

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer, whatever the status; HttpError where there is none. Never sent twice."""


class App(Protocol):
    """What a plugin has of the worker that it runs in, from `cpro_startup` to `cpro_shutdown`."""

    @property
    def settings(self) -> Settings:
        """As they were at start; a reload doesn't reach plugins."""

    @property
    def log(self) -> Logger: ...

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run in the background. An exception is logged and counted; cancelled at shutdown, after `cpro_shutdown`."""

    def http(self, url: str, headers: Mapping[str, str], timeout_s: float) -> HttpEndpoint:
        """A client for `POST url`; make it once, not per request. PluginError when the URL is none."""
