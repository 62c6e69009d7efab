"""`cpro serve`: starts the workers and keeps them running. Owns sockets, lock and table, and no state of its own."""

import asyncio
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import uvloop

from cpro import logs
from cpro._fast.counters import CounterFile
from cpro._fast.crowd import CrowdFile
from cpro._fast.leasetable import LeaseTable
from cpro.clock import boot_ns
from cpro.config.load import Loaded, changes_needing_restart, load
from cpro.config.model import Settings
from cpro.errors import ConfigError, PluginError, StartError
from cpro.limits.table import open_leases, open_table
from cpro.metrics import Catalogue
from cpro.plugins.load import Collected, load_configured
from cpro.run.analyst_child import AnalystKeeper, sinks_of
from cpro.run.child import Child
from cpro.run.datadir import lock_data_dir
from cpro.run.orders import AnalystOrders, Orders, Reload, Stop
from cpro.run.secret import kept_secret
from cpro.run.sockets import Listener
from cpro.run.status import open_statuses
from cpro.run.stores import shards_of, stores_of

log = logging.getLogger(__name__)

FIRST_RESTART_S, LAST_RESTART_S = 0.05, 5.0
"""Wait before a dead worker is started again: doubles while it keeps dying young."""
YOUNG_S = 10.0
MOST_ADDRESSES = 1 << 17
"""Of clients that a worker can tell apart: 2 MiB."""
PEER_ADDRESS = "127.0.0.1:0"
KILL_AFTER_S = 5.0
"""Patience beyond `shutdown.timeout` before a worker that doesn't stop is killed."""


def serve(path: str | None) -> int:
    """Run the service by the configuration at `path` (None: defaults) until a signal; the exit status."""
    try:
        loaded, plugins = load_configured(path, os.environ)
    except (ConfigError, PluginError) as error:
        print(error, file=sys.stderr)
        return 1
    logs.start(loaded.settings.log.level)
    for warning in loaded.warnings:
        log.warning(warning)
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_supervise(path, loaded, plugins))
    except StartError as error:
        log.error(str(error))
        return 1


async def _supervise(path: str | None, loaded: Loaded, plugins: Collected) -> int:
    with ExitStack() as resources:
        supervisor = Supervisor(path, loaded.settings, plugins, resources)
        return await supervisor.run()


class Supervisor:
    """The process at the top. `resources` releases what it holds, whichever way it ends."""

    def __init__(self, path: str | None, settings: Settings, plugins: Collected, resources: ExitStack) -> None:
        self._path = path
        self._plugins = plugins
        self._started = self._settings = settings
        self._earlier: Settings | None = None
        self._workers = settings.workers or len(os.sched_getaffinity(0))
        self._children: dict[int, Child] = {}
        self._stopping = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        data_dir = Path(settings.data_dir)
        resources.enter_context(lock_data_dir(data_dir))
        table = settings.limits_table
        self._table = open_table(table.path, settings.data_dir, table.max_buckets, boot_ns())
        resources.callback(self._table.close)
        self._proxy = Listener(settings.proxy.address, self._workers, "proxy.address")
        resources.callback(self._proxy.close)
        self._api = Listener(settings.http_api.address, self._workers, "http_api.address")
        resources.callback(self._api.close)
        self._gateway: Listener | None = None
        if settings.gateway.enabled:
            self._gateway = Listener(settings.gateway.address, self._workers, "gateway.address")
            resources.callback(self._gateway.close)
        self._internal: Listener | None = None
        self._peers: list[Listener] = []
        self._crowd_path = ""
        self._crowd: CrowdFile | None = None
        if self._gateway is not None:
            self._internal, self._peers = self._open_to_peers(resources)
            self._crowd_path, self._crowd = self._gather(resources)
        self._secret = kept_secret(settings.data_dir)
        self._name = secrets.token_urlsafe(12)
        self._leases: LeaseTable | None = None
        if stores_of(settings).limits is not None:
            self._leases = open_leases(self._table, table.max_buckets, boot_ns())
            resources.callback(self._leases.close)
        self._status_path = open_statuses(settings, resources)
        sinks = sinks_of(settings, plugins.sink_names)
        if plugins.sink_names and not sinks:
            log.warning("clickhouse_analytics is off: sinks get nothing", extra=logs.fields(sinks=plugins.sink_names))
        self._catalogue = Catalogue(plugins.operation_names, plugins.names, shards_of(settings), sinks)
        memory = os.memfd_create("cpro-counters")
        resources.callback(os.close, memory)
        self._counters_path = f"/proc/{os.getpid()}/fd/{memory}"
        self._counter_file = CounterFile.create(self._counters_path, self._workers + 2, self._catalogue.slots)
        self._counters = self._counter_file.block(0)
        self._analyst = AnalystKeeper(self._analyst_orders, self._stopping) if sinks else None

    def _gather(self, resources: ExitStack) -> tuple[str, CrowdFile]:
        """What counts the connections of the gateway, with room for as many addresses as a worker may have clients."""
        memory = os.memfd_create("cpro-crowd")
        resources.callback(os.close, memory)
        path = f"/proc/{os.getpid()}/fd/{memory}"
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        addresses = MOST_ADDRESSES if files == resource.RLIM_INFINITY else min(files // 2, MOST_ADDRESSES)
        return path, CrowdFile.create(path, self._workers, addresses)

    def _open_to_peers(self, resources: ExitStack) -> tuple[Listener | None, list[Listener]]:
        """Where other nodes and workers pass on posts of the gateway's clients; those addresses outlive workers."""
        internal, address = None, self._settings.gateway.internal_address
        if address:
            internal = Listener(address, self._workers, "gateway.internal_address")
            resources.callback(internal.close)
        peers = [Listener(PEER_ADDRESS, 1, "gateway") for _ in range(self._workers if self._workers > 1 else 0)]
        for peer in peers:
            resources.callback(peer.close)
        return internal, peers

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        analyst = loop.create_task(self._analyst.start()) if self._analyst is not None else None
        first = [await self._start(number) for number in range(self._workers)]
        if analyst is not None:
            await analyst
        keepers = [loop.create_task(self._keep(number, child)) for number, child in enumerate(first)]
        gateway = self._gateway.address if self._gateway else None
        log.info("ready", extra=logs.fields(proxy=self._proxy.address, gateway=gateway, api=self._api.address))
        _notify("READY=1")
        await self._stopping.wait()
        await self._stop(keepers)
        return 0

    async def _start(self, number: int) -> Child:
        listeners = (self._proxy, self._api, *([self._gateway] if self._gateway else []))
        proxy_fd, api_fd, *gateway_fd = fds = tuple(listener.sockets[number].fileno() for listener in listeners)
        internal_fd = self._internal.sockets[number].fileno() if self._internal else None
        peer_fd = self._peers[number].sockets[0].fileno() if self._peers else None
        orders = Orders(
            number=number,
            started=self._started,
            settings=self._settings,
            earlier=self._earlier,
            plugins=self._plugins.names,
            operations=self._plugins.operation_names,
            sinks=sinks_of(self._started, self._plugins.sink_names),
            table_path=self._table.path,
            leases_path=self._leases.path if self._leases else "",
            status_path=self._status_path,
            counters_path=self._counters_path,
            service=self._name,
            crowd_path=self._crowd_path,
            proxy_fd=proxy_fd,
            api_fd=api_fd,
            gateway_fd=gateway_fd[0] if gateway_fd else None,
            internal_fd=internal_fd,
            peer_fd=peer_fd,
            peers=tuple(peer.address for peer in self._peers),
            kept_secret=self._secret,
            supervisor=os.getpid(),
        )
        child = await Child.start(orders, (*fds, *(fd for fd in (internal_fd, peer_fd) if fd is not None)))
        while orders.settings is not self._settings:  # a reload went by while this one was starting
            orders = replace(orders, settings=self._settings)
            child.tell(Reload(orders.settings))
            await child.answer()
        self._children[number] = child
        if self._stopping.is_set():  # the order to stop went out while this one was starting
            child.tell(Stop())
        return child

    def _analyst_orders(self) -> AnalystOrders:
        return AnalystOrders(
            started=self._started,
            settings=self._settings,
            plugins=self._plugins.names,
            operations=self._plugins.operation_names,
            sinks=sinks_of(self._started, self._plugins.sink_names),
            counters_path=self._counters_path,
            block=self._workers + 1,
            supervisor=os.getpid(),
        )

    async def _keep(self, number: int, child: Child) -> None:
        """See to it that there is a worker with this number until the service stops."""
        loop = asyncio.get_running_loop()
        wait_s = FIRST_RESTART_S
        while True:
            born = loop.time()
            status = await child.wait()
            del self._children[number]
            if self._leases is not None:
                self._leases.free_flights(child.pid)  # what it was asking the store about, others may ask now
            if self._crowd is not None:
                self._crowd.clear(number)
            if self._stopping.is_set():
                return
            wait_s = FIRST_RESTART_S if loop.time() - born > YOUNG_S else min(wait_s * 2, LAST_RESTART_S)
            log.error("worker died, starting it again", extra=logs.fields(worker=number, status=status))
            self._counters.add(self._catalogue.worker_restarts.first)
            revived = await self._revive(number, wait_s)
            if revived is None:
                return
            child = revived

    async def _revive(self, number: int, wait_s: float) -> Child | None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
                return None
            try:
                return await self._start(number)
            except StartError as error:
                log.error("worker can't start", extra=logs.fields(worker=number, error=str(error)))
                wait_s = min(wait_s * 2, LAST_RESTART_S)
        return None

    def _on_hangup(self) -> None:
        before = self._reloading
        self._reloading = asyncio.get_running_loop().create_task(self._reload(before))

    async def _reload(self, before: asyncio.Task[None] | None) -> None:
        """Put a changed file in force, or say why not and go on as before."""
        if before is not None:
            await before
        _notify(f"RELOADING=1\nMONOTONIC_USEC={boot_ns() // 1000}")
        try:
            names, operations = self._plugins.names, self._plugins.operation_names
            loaded = load(self._path, os.environ, operations=operations, plugins=names)
        except ConfigError as error:
            self._counters.add(self._catalogue.reloads.slot("failed"))
            log.error("reload refused, the old configuration stays", extra=logs.fields(faults=error.faults))
        else:
            await self._put_in_force(loaded)
        _notify("READY=1")

    async def _put_in_force(self, loaded: Loaded) -> None:
        for warning in loaded.warnings:
            log.warning(warning)
        for name in changes_needing_restart(self._started, loaded.settings):
            log.warning("this change needs a restart", extra=logs.fields(setting=name))
        if stores_of(loaded.settings) != stores_of(self._started):
            log.warning("limits stay where they are kept until a restart")
        # A worker that is started again must be like the others: plugins keep the options they were collected with.
        settings = msgspec.structs.replace(loaded.settings, plugins=self._settings.plugins)
        self._earlier, self._settings = self._settings, settings
        logs.set_level(settings.log.level)
        children = list(self._children.values())
        for child in children:
            child.tell(Reload(settings))
        for child in children:
            with suppress(StartError):  # it died; its successor starts with the new settings
                await child.answer()
        if self._analyst is not None:
            await self._analyst.reload(settings)
        self._counters.add(self._catalogue.reloads.slot("ok"))
        log.info("reloaded")

    async def _stop(self, keepers: list[asyncio.Task[None]]) -> None:
        log.info("stopping")
        _notify("STOPPING=1")
        self._proxy.close()
        if self._gateway is not None:
            self._gateway.close()
        for child in self._children.values():
            child.tell(Stop())
        timeout_s = self._settings.shutdown.timeout.seconds
        until = asyncio.get_running_loop().time() + timeout_s
        patience_s = timeout_s + KILL_AFTER_S
        _, late = await asyncio.wait(keepers, timeout=patience_s)
        for child in self._children.values():
            child.kill()
        if late:
            await asyncio.wait(late)
        if self._analyst is not None:  # what the workers have recorded last goes out with it
            await self._analyst.stop(until - asyncio.get_running_loop().time())
        log.info("stopped")


def _raise_file_limit() -> None:
    """Let this process and the workers open as many files as they may: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _notify(state: str) -> None:
    """Tell systemd, where it asked for it (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
