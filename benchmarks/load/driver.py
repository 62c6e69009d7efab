"""wrk, posting publish events for a while, and what it saw."""

import http.client
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("events.lua")
PATH = "/centrifugo/publish"
USERS = 2000
CONNECTIONS = 32


@dataclass(frozen=True)
class Seen:
    """One run of wrk."""

    requests: int
    requests_per_s: float
    p50_us: int
    p99_us: int


def drive(port: int, seconds: int, cores: str, connections: int = CONNECTIONS) -> Seen:
    """Keep `connections` busy; every answer must be a 200."""
    threads = min(len(cores.split(",")), connections)
    argv = ["taskset", "-c", cores, "wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
    argv += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--", PATH, str(USERS)]
    output = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    result = json.loads(output.rpartition("RESULT ")[2])
    if result["faults"]:
        raise RuntimeError(f"{result['faults']} requests failed:\n{output}")
    return Seen(
        result["requests"], result["requests"] / result["duration_us"] * 1e6, result["p50_us"], result["p99_us"]
    )


def probe(port: int, expected: bytes) -> None:
    """Make sure that the server says what the case is about."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = json.dumps({"client": "9336a229-2400-4ebc-8c50-000000000001", "user": "100001", "channel": "chat:room1"})
    try:
        connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != 200 or expected not in answer:
        raise RuntimeError(f"expected {expected!r}, got {response.status} {answer!r}")
