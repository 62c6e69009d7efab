"""Which core does what. The server under test has its own; wrk and the backend share another where there are few."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Places:
    """Cores as taskset(1) takes them."""

    server: str
    load: str
    backend: str
    how: str


def apart() -> Places:
    """One core for the server, none of it for anybody else."""
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
    if len(cores) < 2:
        return Places(cores[0], cores[0], cores[0], "everything on the only core")
    backend = cores[2] if len(cores) > 2 else cores[1]
    return Places(cores[0], cores[1], backend, f"server on core {cores[0]}, wrk on {cores[1]}, backend on {backend}")


def together() -> Places:
    """Two cores for the server; on a machine of two, wrk runs on the same ones."""
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
    server = ",".join(cores[:2])
    load = ",".join(cores[2:4]) if len(cores) > 3 else server
    return Places(server, load, load, f"server on cores {server}, wrk on {load}")
