"""What a plugin imports: `from cpro.plugins import hookimpl, OperationType, …`. The guide is docs/plugins.md."""

from pluggy import HookimplMarker

from cpro.analytics.batch import Batch
from cpro.config.duration import Duration
from cpro.errors import PluginError, SinkError, SinkRejectError, SinkSplitError
from cpro.extension import (
    App,
    Finished,
    HttpEndpoint,
    HttpError,
    OperationType,
    PluginConfig,
    PluginOperation,
    Sink,
)
from cpro.limits.rules import channel_namespace, rpc_namespace
from cpro.operation import BAD_REQUEST, NOT_AVAILABLE, PERMISSION_DENIED, TOO_MANY_REQUESTS, Reply, error_reply
from cpro.plugins.replies import disconnect_reply, result_reply

__all__ = [
    "BAD_REQUEST",
    "NOT_AVAILABLE",
    "PERMISSION_DENIED",
    "TOO_MANY_REQUESTS",
    "App",
    "Batch",
    "Duration",
    "Finished",
    "HttpEndpoint",
    "HttpError",
    "OperationType",
    "PluginConfig",
    "PluginError",
    "PluginOperation",
    "Reply",
    "Sink",
    "SinkError",
    "SinkRejectError",
    "SinkSplitError",
    "channel_namespace",
    "disconnect_reply",
    "error_reply",
    "hookimpl",
    "result_reply",
    "rpc_namespace",
]

hookimpl = HookimplMarker("cpro")
