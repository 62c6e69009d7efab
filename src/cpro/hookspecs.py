"""The contract with plugins: every hook, its shapes and errors. docs/plugins.md is the guide.

A plugin is an entry point in group `cpro`; its name there is the plugin's name. Hooks are called once per process, at
start, and what they return is used until the service ends: SIGHUP reloads no plugin, and no option of one.
What the first four return is checked; anything else than described stops the start with the plugin's name.
"""

from collections.abc import Awaitable, Sequence

from pluggy import HookspecMarker

from cpro.extension import App, Identify, Observe, OperationType, PluginConfig, Sink

PROJECT = "cpro"

hookspec = HookspecMarker(PROJECT)


@hookspec
def cpro_operations(config: PluginConfig) -> Sequence[OperationType] | None:
    """Operation types: RPC methods, namespaces or whole events that the plugin handles.

    Called in the supervisor as well as in every worker, and by commands that only look: it must do nothing but build
    objects, and return the same each time. Two types, of whichever plugins, must not take the same.

    `async handle(operation)` returns a Reply, or None to pass the operation on to the backend (or to what
    `proxy.without_upstream` says). It has `proxy.upstream.timeout`; then, and when it raises or returns anything else,
    the operation answers error 100 (refresh and sub_refresh: HTTP 502), and `cpro_plugin_errors_total` counts it.
    It runs in the event loop of the worker, so it must not block.
    """


@hookspec
def cpro_identify(config: PluginConfig) -> Identify | None:
    """A function, plain or async, that finds the user of a connect which goes to no backend.

    It returns the user's id, an empty text to let the client in anonymously, or None for no opinion: then the next
    plugin is asked, in the order of `plugins` in the configuration, those not named there last by name. When all have
    none, Centrifugo decides. All of them together have `proxy.upstream.timeout`; an exception is answered error 100.
    """


@hookspec
def cpro_observe(config: PluginConfig) -> Observe | Sequence[Observe] | None:
    """Plain functions that are told of finished operations: `function(batch)`, a sequence of `Finished`.

    Each is called in a thread of its own every 100 ms or 1000 operations, whichever is first, and may block there.
    One that is more than 10000 operations behind loses the newest (`cpro_plugin_dropped_total`); what it raises is
    logged and counted, and the batch is not repeated.
    """


@hookspec
def cpro_sinks(config: PluginConfig) -> Sink | Sequence[Sink] | None:
    """Sinks of analytics: objects with `open()`, `write(batch)` and `close()`, see `cpro.plugins.Sink`.

    Called in the supervisor, by commands that only look, and in the process that ships rows (`clickhouse_analytics`
    must be enabled), not in workers: it must do nothing but build objects, and the same each time. Only the shipping
    process calls `open`. A sink starts with the oldest rows that are still in the journal.
    """


@hookspec
def cpro_startup(app: App) -> Awaitable[None] | None:
    """Called in every worker before it accepts traffic; plain or async, 10 s at most. An exception stops the start."""


@hookspec
def cpro_shutdown(app: App) -> Awaitable[None] | None:
    """Called in every worker when the last request is answered; plain or async, 2 s at most. Exceptions are logged.

    A worker that is killed doesn't call it.
    """
