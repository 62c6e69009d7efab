"""What supervisor and workers say to each other, pickled over a socket pair that only the two hold."""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass

from cpro.config.model import Settings

_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class Orders:
    """The first message to a worker: everything it needs to serve."""

    number: int
    started: Settings
    """Those the service started with: what a reload can't change goes by them, in every worker alike."""
    settings: Settings
    """Those in force now."""
    earlier: Settings | None
    """What the last reload replaced: buckets whose size it changed keep the share that is used."""
    plugins: tuple[str, ...]
    """Those that the supervisor has loaded, in order, and the operations they add."""
    operations: tuple[str, ...]
    sinks: tuple[str, ...]
    """Of analytics, for the layout of the counters."""
    table_path: str
    leases_path: str
    """Of the lease table; empty where limits are not shared with other nodes."""
    status_path: str
    """Folder of the table of statuses, or the fold table where they are kept in Redis; empty where they are off."""
    counters_path: str
    service: str
    """Names this run of the service to its workers and, through clients, to other nodes; each start has another."""
    crowd_path: str
    """Of the connections of the gateway; empty where that is off."""
    proxy_fd: int
    api_fd: int
    gateway_fd: int | None
    """None where the gateway is off."""
    internal_fd: int | None
    """Where other nodes pass on posts of the gateway's clients; None where there are no others."""
    peer_fd: int | None
    """Where the service's other workers do; None where there is only one."""
    peers: tuple[str, ...]
    """The addresses of that for all workers, by number."""
    kept_secret: str
    """Signs what cpro tells itself where no `secret` is configured."""
    supervisor: int
    """Its process id."""


@dataclass(frozen=True, slots=True)
class AnalystOrders:
    """The first message to the analyst process; fields as in `Orders`."""

    started: Settings
    settings: Settings
    plugins: tuple[str, ...]
    operations: tuple[str, ...]
    sinks: tuple[str, ...]
    """The built-in one, then those of plugins."""
    counters_path: str
    block: int
    """Of the counter file, its own."""
    supervisor: int


@dataclass(frozen=True, slots=True)
class Reload:
    """To a worker or the analyst process: put these settings in force."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class Stop:
    """To a worker: finish what is in flight and exit."""


@dataclass(frozen=True, slots=True)
class Finish:
    """To the analyst process: send what is in the journal and exit, within this time."""

    within_s: float


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it accepts traffic (or, after a `Reload`, serves by the new settings)."""


@dataclass(frozen=True, slots=True)
class Failed:
    """From a process that can't start."""

    reason: str


def die_with(supervisor: int) -> None:
    """Have the kernel end this process when the supervisor ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it went before we asked
        sys.exit(1)
