"""Whatever becomes of the reader of its log, cpro serves on and stops when told to."""

import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.processes import eventually
from tests.support.service import event, exchange


def free_port() -> int:
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        return finder.getsockname()[1]


class Silent:
    """A running cpro whose log nobody reads, on ports known beforehand."""

    def __init__(self, folder: Path, stderr: int | None, shell: str = 'exec "$@"'):
        self.proxy, self.api = free_port(), free_port()
        self.config = folder / "cpro.json"
        self.config.write_text(
            json.dumps(
                {
                    "data_dir": str(folder / "data"),
                    "limits_table": {"path": str(folder / "table"), "max_buckets": 1000},
                    "proxy": {"address": f"127.0.0.1:{self.proxy}", "without_upstream": "allow"},
                    "http_api": {"address": f"127.0.0.1:{self.api}"},
                }
            )
        )
        command = ["sh", "-c", shell, "sh", sys.executable, "-m", "cpro", "serve", "-c", str(self.config)]
        self.process = subprocess.Popen(command, stderr=stderr, start_new_session=True)

    def publish(self, body: object) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy, timeout=2)
        try:
            return exchange(connection, "/centrifugo/publish", body)
        except OSError as error:
            return error
        finally:
            connection.close()

    def reloads(self) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.api, timeout=2)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return float(text.split('cpro_config_reloads_total{outcome="ok"} ')[1].split("\n")[0])

    def works(self) -> bool:
        return self.publish(event()) == (200, {"result": {}})

    def goes_on(self) -> None:
        """Check that all that writes to the log (a bad event, a reload, a dead worker, the stop) works regardless."""
        assert eventually(lambda: self.process.poll() is not None or self.works(), 10)
        assert self.process.poll() is None
        assert self.publish(b"nonsense")[1]["error"]["code"] == 107
        assert self.works()
        self.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: self.reloads() == 1)
        (worker,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        assert eventually(self.works)
        self.process.terminate()
        assert self.process.wait(5) == 0


@contextmanager
def silent(*args: object, **more: object):
    cpro = Silent(*args, **more)
    try:
        yield cpro
    finally:
        with suppress(ProcessLookupError):
            os.killpg(cpro.process.pid, signal.SIGKILL)
        cpro.process.wait()


def test_the_reader_of_the_log_may_go_away(tmp_path):
    reading, writing = os.pipe()
    try:
        with silent(tmp_path, writing) as cpro:
            os.close(writing)
            assert eventually(cpro.works, 10)
            os.close(reading)
            cpro.goes_on()
    finally:
        for fd in (reading, writing):
            with suppress(OSError):
                os.close(fd)


def test_a_log_on_a_full_disk_is_lost_and_nothing_else(tmp_path):
    with open("/dev/full", "wb") as full, silent(tmp_path, full.fileno()) as cpro:
        cpro.goes_on()


def test_a_service_without_stderr_serves(tmp_path):
    with silent(tmp_path, None, shell='exec "$@" 2>&-') as cpro:
        cpro.goes_on()


def test_a_reader_that_stops_reading_does_not_stop_the_service(tmp_path):
    reading, writing = os.pipe()
    try:
        with silent(tmp_path, writing) as cpro:
            assert eventually(cpro.works, 10)
            fill(writing)
            cpro.goes_on()
    finally:
        os.close(reading)
        os.close(writing)


def fill(pipe: int) -> None:
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 512)
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags)  # the flag is one for all who hold this end


pytestmark = pytest.mark.timeout(30)
