"""CPU time of processes, from the scheduler's own clock: nanoseconds, where /proc/PID/stat has ticks of 10 ms."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """What processes have run so far. `system_ns` is in ticks: good for a share, too coarse for a sum."""

    run_ns: int
    user_ns: int
    system_ns: int

    def since(self, before: "Spent") -> "Spent":
        return Spent(self.run_ns - before.run_ns, self.user_ns - before.user_ns, self.system_ns - before.system_ns)

    @property
    def system_share(self) -> float:
        return self.system_ns / max(1, self.user_ns + self.system_ns)


def spent(pids: list[int]) -> Spent:
    """The sum over these processes, with all their threads, those that have ended too."""
    run_ns = user_ns = system_ns = 0
    for pid in pids:
        run_ns += time.clock_gettime_ns(_clock_of(pid))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user_ns += int(fields[11]) * _TICK_NS
        system_ns += int(fields[12]) * _TICK_NS
    return Spent(run_ns, user_ns, system_ns)


def _clock_of(pid: int) -> int:
    """What clock_getcpuclockid(3) gives for a process on Linux."""
    return (~pid << 3) | 2


def machine_ticks() -> tuple[int, int]:
    """Ticks stolen by the host, and all ticks, of the whole machine (proc_stat): how noisy the neighbours are."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)
