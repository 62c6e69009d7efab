"""Plugins at work in one process: everything they were collected for, between their startup and shutdown."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

from cpro.config.model import Settings
from cpro.doors.claims import Added, Charge, Tell
from cpro.errors import PluginError
from cpro.extension import OperationType
from cpro.limits.rules import Addition, rpc_namespace
from cpro.plugins.app import Endpoints, MakeEndpoint, PluginApp
from cpro.plugins.calls import Calls, Failures, call
from cpro.plugins.handle import Identification, TypeClaim
from cpro.plugins.load import Collected, Plugin
from cpro.plugins.observe import Observers

STARTUP_S = 10.0
SHUTDOWN_S = 2.0


class Plugged:
    """Made inside the event loop; `start` before the first request, `stop` after the last answer."""

    def __init__(
        self,
        collected: Collected,
        charge: Charge,
        charge_scoped: Charge,
        count_error: Callable[[str], None],
        count_dropped: Callable[[str, int], None],
        make_endpoint: MakeEndpoint | None = None,
    ) -> None:
        """`make_endpoint` stands in for HTTP in tests of plugins."""
        self._collected = collected
        self._failures = Failures(count_error)
        self._calls = Calls(self._failures)
        self._endpoints = Endpoints()
        self._make_endpoint = make_endpoint or self._endpoints.make
        self._apps: list[tuple[Plugin, PluginApp]] = []
        self._claims = tuple(
            claim
            for plugin, operation in collected.operations
            for claim in self._claims_of(plugin, operation, charge if operation.scope is None else charge_scoped)
        )
        self._identify = Identification(collected.identifiers, self._calls) if collected.identifiers else None
        self._observers = Observers(collected.observers, self._failures, count_dropped) if collected.observers else None

    @property
    def claims(self) -> tuple[TypeClaim, ...]:
        """What plugins take of events."""
        return self._claims

    @property
    def additions(self) -> tuple[Addition, ...]:
        """The operations that limits must know."""
        return self._collected.additions

    def added(self, settings: Settings) -> Added:
        """What a door adds by these settings, which are in force from now on."""
        self._calls.timeout_s = settings.proxy.upstream.timeout.seconds
        return Added(
            claims=self._claims,
            namespace_of=partial(rpc_namespace, names=settings.rpc),
            identify=self._identify,
            observe=self.observe("proxy"),
        )

    def observe(self, door: str) -> Tell | None:
        """Tells observers of what is over at a door; None where there are none."""
        return None if self._observers is None else partial(self._observers.tell, door)

    async def start(self, settings: Settings) -> None:
        """Call every `cpro_startup`; raises PluginError for the first that fails."""
        for plugin in self._collected.plugins:
            app = PluginApp(plugin.name, settings, self._calls, self._make_endpoint)
            self._apps.append((plugin, app))
            try:
                await asyncio.wait_for(call(plugin.call, "cpro_startup", app), STARTUP_S)
            except PluginError:
                raise
            except Exception as error:  # whatever a plugin may raise
                late = f" (it has {STARTUP_S:g} s)" if isinstance(error, TimeoutError) else ""
                raise PluginError(plugin.name, f"cpro_startup: {type(error).__name__}: {error}{late}") from error

    async def idle(self, timeout_s: float) -> None:
        """Wait until nothing runs for a plugin; TimeoutError when it goes on."""
        await self._calls.idle(timeout_s)

    async def stop(self) -> None:
        """Tell observers the rest, call every `cpro_shutdown`, and end what plugins still do."""
        if self._observers is not None:
            self._observers.close()
        await asyncio.gather(*(self._shut_down(plugin, app) for plugin, app in self._apps))
        await self._calls.close()
        await self._endpoints.close()

    async def _shut_down(self, plugin: Plugin, app: PluginApp) -> None:
        try:
            await asyncio.wait_for(call(plugin.call, "cpro_shutdown", app), SHUTDOWN_S)
        except Exception as error:  # whatever a plugin may raise
            self._failures.tell(plugin.name, "cpro_shutdown", error)

    def _claims_of(self, plugin: str, operation: OperationType, charge: Charge) -> Iterator[TypeClaim]:
        if operation.methods or operation.namespaces:
            methods, namespaces = frozenset(operation.methods), frozenset(operation.namespaces)
            yield TypeClaim(plugin, operation, "rpc", charge, self._calls, methods, namespaces)
        for event in operation.events:
            yield TypeClaim(plugin, operation, event, charge, self._calls)
