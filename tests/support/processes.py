"""What the kernel says of running processes: memory, open files, and whose connection is whose."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tests.support.service import Service


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def owners(address: str, pids: Iterable[int]) -> dict[int, int]:
    """Which process has accepted which connection to `address`: client port -> process id."""
    door = int(address.rsplit(":", 1)[1])
    return {remote: pid for pid in pids for local, remote in _tcp_of(pid) if local == door and remote}


def connections_to(port: int, pid: int) -> list[int]:
    """The process's own ports of the connections it has made to `port`."""
    return [local for local, remote in _tcp_of(pid) if remote == port]


def _tcp_of(pid: int) -> list[tuple[int, int]]:
    """Local and remote port of every IPv4 socket that a process has open."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return [
        (int(row[1].split(":")[1], 16), int(row[2].split(":")[1], 16)) for row in rows if f"socket:[{row[9]}]" in inodes
    ]


def eventually(check: Callable[[], object], timeout_s: float = 30.0) -> bool:
    """Whether `check` comes true in time; which is long, for a machine that is slow, or busy with something else."""
    until = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def log_so_far(cpro: Service) -> list[dict]:
    """Everything that cpro has logged, also what no test has waited for."""
    with suppress(AssertionError):
        cpro.wait_for("nothing is ever called this", 0)
    return cpro.log
