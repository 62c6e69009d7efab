"""cpro with analytics on: its processes, and its commands."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.service import Service


def analytics(*tables: str, flush_interval: str = "100ms", **block: object) -> dict:
    """A `clickhouse_analytics` section that exports these tables, `operations` if none is named."""
    export = {table: {"enabled": True, "flush_interval": flush_interval} for table in tables or ("operations",)}
    return {"clickhouse_analytics": {"enabled": True, "export": export, **block}}


def run_command(cpro: Service, *words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """One of cpro's commands with the service's configuration."""
    command = [sys.executable, "-m", "cpro", *words, "-c", str(cpro.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)


def ask(cpro: Service, sql: str) -> list[dict]:
    """The rows of a query's result; fails the test when there is none."""
    done = run_command(cpro, "query", "--format", "json", sql)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def status(cpro: Service) -> dict:
    return json.loads(run_command(cpro, "analytics", "status", "--format", "json").stdout)


def state_of(cpro: Service) -> dict[str, dict]:
    """`cpro analytics status`, by sink."""
    return {sink["sink"]: sink for sink in status(cpro)["sinks"]}


def drained(cpro: Service) -> bool:
    """Whether the analyst runs, and no sink has rows waiting."""
    state = status(cpro)
    return state["running"] and all(sink["waiting_bytes"] == 0 for sink in state["sinks"])


def processes(cpro: Service, module: str) -> list[int]:
    """Ids of the service's processes that run `cpro.run.{module}`."""
    return [pid for pid in cpro.workers() if f"cpro.run.{module}".encode() in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
