"""A real `cpro serve` in a folder of its own, on free ports."""

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

START_S = 60.0


class Service:
    """One running cpro. Use as a context manager; leaving stops it and everything it started."""

    def __init__(self, folder: Path, settings: dict | None = None, env: dict[str, str] | None = None):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "cpro.json"
        self.env = env or {}
        self.log: list[dict] = []
        self._connections: list[http.client.HTTPConnection] = []
        self.write(settings or {})

    def write(self, settings: dict) -> None:
        """Write the configuration; what every test wants alike is filled in."""
        self.settings = {
            "data_dir": str(self.folder / "data"),
            "limits_table": {"path": str(self.folder / "table"), "max_buckets": 100_000},
            **settings,
        }
        self.settings["proxy"] = {"address": "127.0.0.1:0", **settings.get("proxy", {})}
        self.settings["http_api"] = {"address": "127.0.0.1:0", **settings.get("http_api", {})}
        self.config.write_text(json.dumps(self.settings))

    def start(self) -> "Service":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cpro", "serve", "-c", str(self.config)],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **self.env},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()  # ends with None
        threading.Thread(target=read_lines, args=(self.process, self._lines), daemon=True).start()
        ready = self.wait_for("ready", START_S)
        self.proxy, self.api, self.gateway = ready["proxy"], ready["api"], ready["gateway"]
        return self

    def wait_for(self, message: str, timeout_s: float = 30.0) -> dict:
        """The next log line with this message; fails the test when it doesn't come."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no log line {message!r}; so far: {self.log}") from None
            if line is None:
                raise AssertionError(f"cpro ended with {self.process.wait()}; log: {self.log}")
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"message": line.rstrip()}
            self.log.append(entry)
            if entry["message"] == message:
                return entry

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)

    def kill_all(self) -> None:
        """`kill -9` of every process at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def reload(self, settings: dict) -> None:
        """Write new settings and wait until they are in force."""
        self.write(settings)
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("reloaded")

    def __enter__(self) -> "Service":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        for connection in self._connections:
            connection.close()
        if self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill_all()
                raise

    # -- speaking to it

    def connect(self, address: str | None = None) -> http.client.HTTPConnection:
        """A keep-alive connection to the proxy door, closed with the service."""
        host, port = (address or self.proxy).rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        self._connections.append(connection)
        return connection

    def post(self, event: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, object]:
        """Post one event on a connection of its own: the status and the decoded body (None when empty)."""
        connection = self.connect()
        try:
            return exchange(connection, f"/centrifugo/{event}", body, headers)
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, str]:
        """GET from the API door."""
        connection = self.connect(self.api)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metric(self, sample: str) -> float:
        """One sample of /metrics, by its name and labels as they stand there; 0 when it isn't there."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(sample + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0


def read_lines(process: subprocess.Popen, lines: "queue.Queue[str | None]") -> None:
    for line in process.stderr:
        lines.put(line)
    process.stderr.close()
    lines.put(None)


def exchange(
    connection: http.client.HTTPConnection, path: str, body: object, headers: dict[str, str] | None = None
) -> tuple[int, object]:
    payload = body if isinstance(body, bytes | str) else json.dumps(body)
    connection.request("POST", path, payload, {"Content-Type": "application/json", **(headers or {})})
    response = connection.getresponse()
    data = response.read()
    return response.status, json.loads(data) if data else None


def event(user: str = "42", client: str = "c1", **fields: object) -> dict:
    """An event's body as Centrifugo sends it."""
    return {
        "client": client,
        "transport": "websocket",
        "protocol": "json",
        "encoding": "json",
        "user": user,
        **fields,
    }


def limits(block: str = "user_command", **operations: object) -> dict:
    """A `client` section that limits: `limits(publish=(3, "1m"))`; lists and dicts are taken as they are."""
    return {"client": {"rate_limit": {block: {"enabled": True, **{k: limit(v) for k, v in operations.items()}}}}}


def limit(value: object) -> object:
    if isinstance(value, tuple):
        rate, interval, *burst = value
        bucket = {"interval": interval, "rate": rate, **({"burst": burst[0]} if burst else {})}
        return {"enabled": True, "buckets": [bucket]}
    return value


REFUSED = {"error": {"code": 111, "message": "too many requests", "temporary": True}}
"""The answer to an operation over its limit."""
