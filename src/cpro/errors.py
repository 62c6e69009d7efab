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


class ProtocolError(CproError):
    """The peer broke HTTP; `status` is what a server answers before it closes (RFC 9110 section 15)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class StoreError(CproError):
    """A store (a file, Redis, ClickHouse) failed or is away."""
