"""Programs started for a measurement: each pinned to its cores, each ended by its own id."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

START_S = 20.0
STOP_S = 15.0


class Program:
    """One running program that listens on a port. A context manager: leaving it ends the program."""

    def __init__(self, argv: list[str], cores: str, port: int, env: dict[str, str] | None = None) -> None:
        self._argv = ["taskset", "-c", cores, *argv]
        self._port = port
        self._env = {**os.environ, **(env or {})}

    def __enter__(self) -> "Program":
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._argv, env=self._env, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )
        try:
            self._wait_until_listening()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                for pid in reversed(self.pids()):
                    os.kill(pid, signal.SIGKILL)
                self._process.wait()
        self._output.close()

    def pids(self) -> list[int]:
        """The program's process and all that it started, parents first."""
        return tree(self._process.pid)

    def _wait_until_listening(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            with socket.socket() as visitor:
                if visitor.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.02)
        self._output.seek(0)
        said = self._output.read()[-2000:].decode(errors="replace")
        raise RuntimeError(f"{' '.join(self._argv)} doesn't listen on port {self._port}: {said}")


_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now; another one each time."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port: int = listener.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def tree(pid: int) -> list[int]:
    """A process and all that it started, parents first."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found
