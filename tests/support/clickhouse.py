"""A ClickHouse to test against: the real engine, in a process of its own, behind HTTP that can be made to fail."""

import json
import os
import ssl
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

from tests.support.processes import eventually
from tests.support.redis import free_port

START_S = 30.0
REAL = os.environ.get("CPRO_TEST_CLICKHOUSE", "")
"""DSN of a real server, for the tests that one is needed for."""


class ClickhouseStandIn:
    """A context manager. What is stored stays in `folder`, whether it is stopped or killed."""

    def __init__(self, folder: Path, certificates: dict[str, str] | None = None) -> None:
        """With `certificates` (tests.support.redis) it speaks TLS, and clients must have a certificate."""
        self.folder = folder
        self._certificates = certificates
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"{'https' if self._certificates else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> "ClickhouseStandIn":
        command = [sys.executable, "-m", "tests.support.clickhouse_process", str(self.folder), str(self.port)]
        if self._certificates:
            command += [self._certificates[name] for name in ("server_cert", "server_key", "ca")]
        self._process = subprocess.Popen(command)
        assert eventually(self.answers, START_S), "the stand-in does not answer"
        return self

    def answers(self) -> bool:
        with suppress(OSError):
            return self._ask("/ping") == b"Ok.\n"
        return False

    def fault(self, *faults: str) -> None:
        """One for each of the next inserts; clickhouse_process has the list."""
        self._ask("/faults", json.dumps(faults).encode())

    def tokens(self) -> list[str]:
        """Of all inserts that were received whole, since it started."""
        return json.loads(self._ask("/inserts"))

    def query(self, sql: str) -> list[dict]:
        """Rows, by column."""
        lines = self._ask("/", f"{sql}\nFORMAT JSONEachRow".encode())
        return [json.loads(line) for line in lines.splitlines()]

    def value(self, sql: str) -> object:
        """Of one row with one column."""
        (row,) = self.query(sql)
        (value,) = row.values()
        return value

    def run(self, sql: str) -> None:
        self._ask("/", sql.encode())

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def __enter__(self) -> "ClickhouseStandIn":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"{self.dsn}{path}", body, timeout=30, context=self._context()) as answer:
            return answer.read()

    def _context(self) -> ssl.SSLContext | None:
        if self._certificates is None:
            return None
        context = ssl.create_default_context(cafile=self._certificates["ca"])
        context.check_hostname = False
        context.load_cert_chain(self._certificates["client_cert"], self._certificates["client_key"])
        return context
