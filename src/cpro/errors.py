"""Exceptions by audience: whoever reads the class name knows who has to act."""


class CproError(Exception):
    """Base of everything cpro raises on purpose."""


class ConfigError(CproError):
    """The operator's configuration is wrong; `faults` has one line per fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class StartError(CproError):
    """The service can't start here: a port in use, a locked folder, no room for a table."""


class PluginError(StartError):
    """A plugin can't be used: whoever wrote or installed it has to act."""

    def __init__(self, plugin: str, reason: str) -> None:
        super().__init__(f"plugin {plugin}: {reason}")
        self.plugin = plugin
        self.reason = reason


class ProtocolError(CproError):
    """The peer broke HTTP; `status` is what a server answers before it closes (RFC 9110 section 15)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class StoreError(CproError):
    """A store (a file, Redis, ClickHouse) failed or is away."""


class StoreUnavailableError(StoreError):
    """The store surely did not execute the call: no connection, still loading, a replica, a cluster that is down."""


class StoreTimeoutError(StoreError):
    """The call was sent and no reply came, in time or before the connection broke: it may have been executed.

    Only what is safe to execute twice may be sent again.
    """


class StoreReplyError(StoreError):
    """The store answered that the call itself is wrong: an error of the script, of its arguments, of permissions."""


class SinkError(CproError):
    """An analytics sink could not take a batch. Raised as it is: the same batch again, later."""


class SinkSplitError(SinkError):
    """The batch is too big for the sink: again in halves."""


class SinkRejectError(SinkError):
    """The sink will never take this batch, however often it is sent: it is set aside in a file, and counted."""
