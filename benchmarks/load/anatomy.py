"""Where a request's CPU goes, by perf(1): system calls per request, and samples by library.

Runs after the rounds, on servers of its own: counting tracepoints and sampling cost time that must not be measured.
"""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.load.cases import Case
from benchmarks.load.driver import drive
from benchmarks.load.measure import Running, running

CALLS = (
    "epoll_wait", "epoll_pwait", "epoll_ctl", "read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto",
    "sendmsg", "futex", "getpid", "ioctl", "setsockopt",
)  # fmt: skip
WAKE_UP = "sched:sched_waking"  # a write that finds its reader asleep: dear, the more so on a virtual machine
SAMPLES_PER_S = 2000
GROUPS = (
    ("kernel", r"\[kernel|\[unknown"),
    ("vdso (clock)", r"\[vdso"),
    ("cpro: http1", r"^http1"),
    ("cpro: buckets, counters", r"^(buckets|bucketfile|counters|hashing)"),
    ("msgspec", r"^_core\.cpython"),
    ("uvloop + libuv", r"^loop\.cpython"),
    ("cpro: connections and other extensions", r"^\w+\.cpython"),
    ("Python interpreter", r"^(libpython|python)"),
    ("nginx itself", r"^nginx"),
    ("libc", r"^(libc|ld-linux|libm|libpthread)"),
)


def why_not() -> str:
    """Why nothing can be measured here; empty if it can."""
    if shutil.which("perf") is None:
        return "no perf (Debian: linux-perf)"
    tried = subprocess.run(["perf", "stat", "-a", "-e", "raw_syscalls:sys_enter", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "perf may not count tracepoints here (needs root)"


def dissect(case: Case, seconds: int) -> dict[str, dict[str, float]]:
    """System calls per request by name, and the share of samples by part."""
    with running(case) as server:
        return {"calls": _count_calls(server, seconds), "parts": _sample(server, seconds)}


def _count_calls(server: Running, seconds: int) -> dict[str, float]:
    events = ["raw_syscalls:sys_enter", WAKE_UP, *(f"syscalls:sys_enter_{name}" for name in CALLS)]
    with tempfile.NamedTemporaryFile("r") as output:
        argv = ["perf", "stat", "-x", ";", "-o", output.name, "-e", ",".join(events), "-p", _pids(server)]
        requests = _under(argv, server, seconds)
        rows = [line.split(";") for line in output.read().splitlines() if ";" in line]
    counts = {row[2].removeprefix("syscalls:sys_enter_"): int(row[0]) for row in rows if row[0].isdigit()}
    total = counts.pop("raw_syscalls:sys_enter")
    counts["(wakes a sleeping reader)"] = counts.pop(WAKE_UP, 0)
    found = {name: count / requests for name, count in counts.items() if count > requests / 200}
    return {"all": total / requests, **dict(sorted(found.items(), key=lambda item: -item[1]))}


def _sample(server: Running, seconds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        argv = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_PER_S), "-o", data, "-p", _pids(server)]
        _under(argv, server, seconds)
        report = ["perf", "report", "-i", data, "--stdio", "-q", "--sort", "dso", "-F", "period,dso", "-t", ";"]
        text = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    parts: Counter[str] = Counter()
    for line in text.splitlines():
        period, _, library = line.partition(";")
        if period.strip().isdigit():
            parts[_group(library.strip())] += int(period)
    total = sum(parts.values())
    return {part: count / total for part, count in parts.most_common()}


def _under(argv: list[str], server: Running, seconds: int) -> int:
    """Run perf around one run of wrk; the number of requests."""
    perf = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        requests = drive(server.launch.port, seconds, server.places.load).requests
    finally:
        perf.send_signal(2)  # SIGINT: write what was found
        perf.wait(30)
    return requests


def _pids(server: Running) -> str:
    return ",".join(map(str, server.program.pids()))


def _group(library: str) -> str:
    return next((name for name, pattern in GROUPS if re.search(pattern, library)), "other")
