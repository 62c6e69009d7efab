"""Memory: a worker at start, an idle connection, ten million buckets."""

import json
import resource
import socket
import struct
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.load import cpro, peers
from benchmarks.load.driver import PATH
from benchmarks.load.peers import Launch
from benchmarks.load.places import apart
from benchmarks.load.processes import Program

CONNECTIONS = 10_000
REQUEST = (
    f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 51\r\n"
    "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
    '{"client":"c1","user":"42","channel":"chat:room17"}'
).encode()

_TABLE = """
import json, os, sys, time
from cpro._fast.bucketfile import file_bytes
from cpro._fast.buckets import USER, BucketTable, Layer, Plan
live = 10_000_000
now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
table = BucketTable.create_or_open(sys.argv[1], live, bytes(16), now_ns)
plan = Plan([Layer(0, USER, 1, 3600 * 10**9, 10 * 3600 * 10**9)])
charge = table.charge
for number in range(live):
    charge(plan, "", str(number), 1, now_ns)
found = {"bytes": os.stat(sys.argv[1]).st_size, "live": table.live(now_ns), "evicted": table.evictions}
assert found["bytes"] == file_bytes(live)
print(json.dumps(found))
"""


def measure_memory(python: str) -> dict[str, dict]:
    """Bytes everywhere; `idle_connection` leaves out what the kernel keeps for a socket."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = CONNECTIONS if hard == resource.RLIM_INFINITY else min(CONNECTIONS, hard - 500)
    with tempfile.TemporaryDirectory() as folder:
        own = cpro.launch(python, Path(folder))
        at_start, idle_cpro = _measure_server(own, connections)
    with tempfile.TemporaryDirectory() as folder:
        _, idle_nginx = _measure_server(peers.nginx(Path(folder), 0), connections)
    return {
        "worker_at_start": at_start,
        "idle_connection": {"cpro": idle_cpro, "nginx": idle_nginx, "connections": connections},
        "table_10m": _measure_table(python),
    }


def _measure_server(launch: Launch, count: int) -> tuple[dict, float]:
    """What the one worker takes at start, and for each of `count` idle connections."""
    places = apart()
    with Program(launch.argv, places.server, launch.port, launch.env) as program, ExitStack() as open_ones:
        open_ones.enter_context(_visit(launch.port))  # the worker is up once it answers
        worker = program.pids()[1]
        at_start = {"resident": _status(worker, "VmRSS"), "private": _status(worker, "RssAnon")}
        for _ in range(100):  # what the first requests allocate once for all
            open_ones.enter_context(_visit(launch.port))
        before = _status(worker, "RssAnon")
        for _ in range(count):
            open_ones.enter_context(_visit(launch.port))
        return at_start, (_status(worker, "RssAnon") - before) / count


def _visit(port: int) -> socket.socket:
    """A connection that has had one answer and stays."""
    visitor = socket.create_connection(("127.0.0.1", port), timeout=10)
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leave no TIME_WAIT behind
    visitor.sendall(REQUEST)
    answer = visitor.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"unexpected answer {answer!r}")
    return visitor


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {field}")


def _measure_table(python: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        argv = [python, "-c", _TABLE, str(Path(folder) / "table")]
        return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300).stdout)
