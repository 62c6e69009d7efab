"""What the numbers were measured on: the machine, and the version of everybody."""

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.load import peers


def describe(python: str) -> dict[str, object]:
    """Machine, date and versions. The load average says whether anybody else was at work."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {
            "cpro": _ask(python, "-c", "import cpro; print(cpro.__version__)"),
            "python": f"{_ask(python, '-V')} ({Path(python).resolve()})",
            "uvloop": _ask(python, "-c", "import uvloop; print(uvloop.__version__)"),
            "nginx": _ask(shutil.which("nginx", path=peers.PATH) or "nginx", "-v"),
            "haproxy": _peer(peers.haproxy_path, "-v"),
            "envoy": _peer(peers.envoy_path, "--version"),
            "wrk": _ask("wrk", "-v"),
            **{name: _package(name) for name in ("uvicorn", "httptools", "limits", "aiohttp")},
        },
    }


def made_on(machine: dict) -> str:
    """When, and on what."""
    return f"{machine['date']}; {machine['cpu']}, Linux {machine['kernel']}; load before: {machine['load_before']}."


def _peer(find: Callable[[], str], flag: str) -> str:
    try:
        return _ask(find(), flag)
    except peers.AbsentError:
        return ""


def _ask(*argv: str) -> str:
    """The version in the first line that a command prints: the last number of three parts."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    except OSError:
        return ""
    line = next((line for line in done.stdout.splitlines() if line.strip()), "")
    found = re.findall(r"\d+\.\d+\.\d+", line)
    return found[-1] if found else line.strip()


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
