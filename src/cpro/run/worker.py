"""A process that serves: all doors on one uvloop. Wires the parts together and follows the supervisor's orders."""

import asyncio
import gc
import logging
import signal
import socket
import ssl
import sys
from functools import partial
from multiprocessing.connection import Connection as Channel
from typing import TYPE_CHECKING

import uvloop

from cpro import logs
from cpro._fast.buckets import BucketTable
from cpro._fast.counters import CounterFile, Recorder
from cpro.config.model import EVENTS, TLS, Settings
from cpro.config.tls import client_context, server_context
from cpro.doors.answers import user_of
from cpro.doors.api import ApiDoor
from cpro.doors.api_methods import Method
from cpro.doors.api_pass_on import TIMEOUT_S
from cpro.doors.api_publications import OnPublication
from cpro.doors.api_rate_limit import RateLimit
from cpro.doors.api_user_status import status_methods
from cpro.doors.claims import NOTHING_ADDED, Record
from cpro.doors.events import read_plainly
from cpro.doors.proxy import ProxyDoor
from cpro.doors.seal import Seal
from cpro.doors.upstream import DROPPED_HEADERS, build_forwards, urls_of
from cpro.errors import CproError
from cpro.http.client import HttpClient
from cpro.http.server import Server
from cpro.limits.rules import Rules, compile_rules
from cpro.metrics import TRANSPORTS, UPSTREAM_OUTCOMES, VERDICTS, Catalogue, Exposition
from cpro.operation import Reply
from cpro.run.centrifugo import connect_api
from cpro.run.limits import build_limits
from cpro.run.orders import Failed, Orders, Ready, Reload, Stop, die_with
from cpro.run.status import build_statuses
from cpro.run.stores import shards_of

if TYPE_CHECKING:
    from cpro.plugins.plugged import Plugged
    from cpro.run.analytics import Analytics
    from cpro.run.gateway import GatewayHouse

log = logging.getLogger(__name__)

CONNECT_SHARE = 0.5
"""Part of the upstream timeout that making a connection may take, so that another endpoint can still be tried."""
API_DRAIN_S = 1.0
"""How long the API door may still finish requests when all others have stopped, at least."""
REPLY_LIMIT_BYTES = 16 * 1024 * 1024


class Worker:
    """Everything one worker process owns. The supervisor restarts it when it dies."""

    def __init__(self, orders: Orders, channel: Channel) -> None:
        self._orders = orders
        self._channel = channel
        self._settings = orders.settings
        self._table = BucketTable.attach(orders.table_path)
        self._catalogue = Catalogue(orders.operations, orders.plugins, shards_of(orders.started), orders.sinks)
        self._counter_file = CounterFile.attach(orders.counters_path)
        self._counters = self._counter_file.block(orders.number + 1)
        self._limits = build_limits(orders.started, self._table, orders.leases_path, self._counters, self._catalogue)
        self._gate = self._limits.gate
        self._proxy = ProxyDoor(self._gate.charge, self._recorder, self._gate.wait)
        self._status = build_statuses(orders.started, orders.status_path, self._counters, self._catalogue)
        methods: dict[str, Method] = {
            "rate_limit": RateLimit(self._limits.quotas, self._api_recorder("rate_limit")),
            **status_methods(self._status.statuses, self._api_recorder),
        }
        self._api = ApiDoor(self._metrics if orders.started.prometheus.enabled else None, methods)
        self._plugged = self._plug() if orders.plugins else None
        self._gateway = self._build_gateway() if orders.gateway_fd is not None else None
        self._analytics = self._record() if orders.started.clickhouse_analytics.enabled else None
        self._rules: Rules | None = None
        self._client: HttpClient | None = None
        self._api_client: HttpClient | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        if self._orders.earlier is not None:
            self._compile(self._orders.earlier)
        self._configure(self._settings)
        started = self._orders.started
        if self._plugged is not None:
            await self._plugged.start(self._settings)
        proxy = Server(self._proxy, max_body_bytes=started.max_body_size, tls=_listener_tls(started.proxy.tls))
        api = Server(self._api, max_body_bytes=started.max_body_size, tls=_listener_tls(started.http_api.tls))
        await proxy.listen(socket.socket(fileno=self._orders.proxy_fd))
        await api.listen(socket.socket(fileno=self._orders.api_fd))
        if self._gateway is not None:
            await self._gateway.listen(socket.socket(fileno=self._orders.gateway_fd))
            await self._gateway.listen_to_peers(_inherited(self._orders.internal_fd), _inherited(self._orders.peer_fd))
        loop.add_signal_handler(signal.SIGTERM, self._stopped.set)
        loop.add_reader(self._channel.fileno(), self._on_message)
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        self._channel.send(Ready())
        await self._stopped.wait()
        self._api.stopping = True
        until_s = loop.time() + started.shutdown.timeout.seconds
        if self._gateway is not None:
            await self._gateway.drain(started.shutdown.timeout.seconds)
        await proxy.drain(max(until_s - loop.time(), API_DRAIN_S))
        if self._plugged is not None:
            await self._plugged.stop()
        await api.drain(max(API_DRAIN_S, until_s - loop.time()))
        for client in (self._client, self._api_client):
            if client is not None:
                await client.close(0.0)
        await self._status.close()
        await self._limits.close()
        if self._analytics is not None:
            await self._analytics.close()

    def _on_message(self) -> None:
        try:
            message = self._channel.recv()
        except EOFError:  # the supervisor is gone; the kernel is about to end us too
            sys.exit(1)
        if isinstance(message, Reload):
            self._configure(message.settings)
            self._channel.send(Ready())
        elif isinstance(message, Stop):
            self._stopped.set()

    def _configure(self, settings: Settings) -> None:
        """Put everything that can be reloaded in force, from the next request on."""
        logs.set_level(settings.log.level)
        self._settings = settings
        self._gate.configure(settings.client.rate_limit, self._compile(settings))
        self._limits.quotas.configure(settings.client.rate_limit.store_timeout.seconds)
        retired, self._client = self._client, self._connect(settings)
        forwards = build_forwards(settings.proxy.upstream, self._client, self._counter_of_upstream)
        added = self._plugged.added(settings) if self._plugged else NOTHING_ADDED
        seal = self._seal_of(settings)
        rows = self._analytics.rows(settings) if self._analytics else None
        self._proxy.configure(
            settings.proxy,
            forwards,
            user_of,
            by_address=self._gate.wants_address,
            added=added,
            interests=[*self._status.interests, *([rows.told] if rows else [])],
            reading_of=rows.reading_of if rows else read_plainly,
            own=self._status.own,
            seal=seal,
        )
        if self._gateway is not None and seal is not None:
            recording = rows.recording if rows else None
            self._gateway.configure(settings, seal, recording, self._status)
        self._configure_api(settings, rows.on_publication if rows else None)
        self._retire(retired, settings.proxy.upstream.timeout.seconds)

    def _configure_api(self, settings: Settings, on_publication: OnPublication | None) -> None:
        retired = self._api_client
        self._api_client, pass_on = connect_api(settings.http_api, self._api_recorder("passed_on"), on_publication)
        self._api.configure(settings.http_api, pass_on)
        self._retire(retired, TIMEOUT_S)

    def _retire(self, client: HttpClient | None, drain_s: float) -> None:
        """Let a client finish what it has begun."""
        if client is not None:
            closing = asyncio.get_running_loop().create_task(client.close(drain_s))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _seal_of(self, settings: Settings) -> Seal | None:
        """What opens the seals of gateways: those of other nodes have the same configured secret."""
        if not settings.secret and not self._orders.started.gateway.enabled:
            return None
        return Seal((settings.secret or self._orders.kept_secret).encode())

    def _compile(self, settings: Settings) -> Rules:
        self._rules = compile_rules(
            settings.client.rate_limit,
            settings.channel,
            settings.rpc,
            extra=self._plugged.additions if self._plugged else (),
            previous=self._rules,
            has_store=self._limits.leaser is not None,
        )
        return self._rules

    def _record(self) -> "Analytics":
        from cpro.run.analytics import Analytics  # the same for a service without analytics

        return Analytics(self._orders.started, self._orders.number, self._counters, self._catalogue)

    def _plug(self) -> "Plugged":
        from cpro.plugins.load import load_again  # a service without plugins does without all of this
        from cpro.plugins.plugged import Plugged

        add, errors, dropped = self._counters.add, self._catalogue.plugin_errors, self._catalogue.plugin_dropped
        return Plugged(
            load_again(self._settings.plugins, self._orders.plugins, self._orders.operations),
            self._gate.charge,
            self._gate.charge_scoped,
            lambda plugin: add(errors.slot(plugin)),
            lambda plugin, operations: add(dropped.slot(plugin), operations),
        )

    @staticmethod
    def _connect(settings: Settings) -> HttpClient:
        upstream = settings.proxy.upstream
        is_https = any(url.startswith("https:") for event in EVENTS for url in urls_of(upstream, event))
        return HttpClient(
            asyncio.get_running_loop(),
            timeout_s=upstream.timeout.seconds,
            connect_timeout_s=upstream.timeout.seconds * CONNECT_SHARE,
            max_reply_bytes=REPLY_LIMIT_BYTES,
            tls=client_context(upstream.tls) if is_https else None,
            server_hostname=upstream.tls.server_name or None,
            drop=DROPPED_HEADERS,
        )

    def _build_gateway(self) -> "GatewayHouse":
        from cpro.run.gateway import ConnectionCount, GatewayHouse  # a service without it does without all of this

        claims = self._plugged.claims if self._plugged else ()
        slots = {name: self._catalogue.gateway_connections.slot(name) for name in TRANSPORTS}
        connections = ConnectionCount(self._counters, slots)
        observe = self._plugged.observe("gateway") if self._plugged else None
        record = partial(self._recorder, door="gateway")
        return GatewayHouse(self._orders, self._gate, record, claims, observe, connections)

    def _recorder(self, kind: str, door: str = "proxy") -> Record:
        first = self._catalogue.operations.slot(door, kind, VERDICTS[0])
        return Recorder(self._counters, first, self._catalogue.durations.slot(door, kind))

    def _api_recorder(self, method: str) -> Record:
        return self._recorder(method, door="api")

    def _counter_of_upstream(self, event: str) -> Recorder:
        first = self._catalogue.upstream.slot(event, UPSTREAM_OUTCOMES[0])
        return Recorder(self._counters, first, self._catalogue.upstream_durations.slot(event))

    def _metrics(self) -> Reply:
        exposition = Exposition(self._catalogue, self._counter_file.totals, lambda: self._table.evictions)
        return Reply(exposition.render(), content_type=Exposition.content_type)


def _inherited(fd: int | None) -> socket.socket | None:
    return None if fd is None else socket.socket(fileno=fd)


def _listener_tls(tls: TLS) -> ssl.SSLContext | None:
    return server_context(tls) if tls.enabled else None


def main() -> None:
    """Entry of `python -m cpro.run.worker FD`: `FD` is our end of the channel to the supervisor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    channel: Channel = Channel(int(sys.argv[1]))
    orders = channel.recv()
    die_with(orders.supervisor)
    logs.start(orders.settings.log.level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(orders, channel))
    except CproError as error:
        channel.send(Failed(str(error)))
        sys.exit(1)


async def _serve(orders: Orders, channel: Channel) -> None:
    await Worker(orders, channel).run()


if __name__ == "__main__":
    main()
