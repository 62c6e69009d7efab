"""A real Centrifugo on a free port, pointed at a cpro by that cpro's own `centrifugoconfig`."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

START_S = 15.0
BELOW_EPHEMERAL = range(20_000, 32_000)
"""Ports the kernel gives to no outgoing connection, so that one stays free while its server is restarted."""


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    while True:
        port = random.choice(BELOW_EPHEMERAL)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def part_by_cpro(config: Path, env: dict[str, str] | None = None) -> dict:
    """What `cpro centrifugoconfig` prints for a configuration file."""
    command = [sys.executable, "-m", "cpro", "centrifugoconfig", "-c", str(config)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=30, env={**os.environ, **(env or {})}
    )
    return json.loads(done.stdout)


def merge(base: dict, more: dict) -> dict:
    """`more` laid over `base`, object by object; lists of named objects are joined by name."""
    return {**base, **{key: _joined(base.get(key), value) for key, value in more.items()}}


def _joined(below: object, above: object) -> object:
    if isinstance(below, dict) and isinstance(above, dict):
        return merge(below, above)
    if isinstance(below, list) and isinstance(above, list) and all(_is_named(one) for one in below + above):
        named = {one["name"]: one for one in below}
        return list(merge(named, {one["name"]: one for one in above}).values())
    return above


def _is_named(value: object) -> bool:
    return isinstance(value, dict) and "name" in value


class Centrifugo:
    """One running Centrifugo. Use as a context manager."""

    API_KEY = "api-key-of-the-tests"

    def __init__(self, folder: Path, config: dict, port: int | None = None):
        """`port` is one of `free_port`, for those who must know it before there is a configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        self._port = port or config.get("http_server", {}).get("port") or free_port()
        own = {
            "http_server": {"address": "127.0.0.1", "port": self._port},
            "http_api": {"key": self.API_KEY},
            "health": {"enabled": True},
            "usage_stats": {"disabled": True},
            "client": {"allowed_origins": ["*"]},
            "log": {"level": "warn"},
        }
        self.config = folder / "centrifugo.json"
        self.config.write_text(json.dumps(merge(own, config), indent=1))
        self.base = f"http://127.0.0.1:{self._port}"
        self.url = f"ws://127.0.0.1:{self._port}/connection/websocket"
        self._log = folder / "centrifugo.log"

    def __enter__(self) -> "Centrifugo":
        with self._log.open("w") as log:
            command = ["centrifugo", "-c", str(self.config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.config.parent)
        try:
            self._wait_for_health()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_for_health(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise AssertionError(f"Centrifugo does not start: {self.log}")

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def api(self, method: str, body: dict) -> dict:
        """Call the server API; the result."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/api/{method}",
            json.dumps(body).encode(),
            {"X-API-Key": self.API_KEY, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)["result"]
