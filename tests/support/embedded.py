"""The embedded ClickHouse as the analyst process has it: in a process of its own, started fresh, that may be killed.

chdb blocks signals and can't live through a fork, so no test imports it. `EmbeddedProcess.call` has a function of
`Calls` run there; what it raises is raised here.
"""

import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from cpro.analytics.schema import BY_NUMBER
from cpro.config.model import ClickhouseAnalytics, Settings
from cpro.errors import CproError
from tests.support.analytics import batch_of


class EmbeddedProcess:
    """A context manager; `data_dir` outlives it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    @property
    def folder(self) -> Path:
        return self.data_dir / "clickhouse"

    def start(self) -> "EmbeddedProcess":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.support.embedded", str(self.data_dir)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def call(self, name: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((name, arguments), self.process.stdin)
        self.process.stdin.flush()
        kind, result = pickle.load(self.process.stdout)
        if kind == "error":
            raise result
        return result

    def kill(self) -> None:
        self.process.kill()
        self._end()

    def stop(self) -> None:
        """A clean end."""
        self.call("close")
        self._end()

    def _end(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> "EmbeddedProcess":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


class Calls:
    """What can be done there."""

    def __init__(self, data_dir: str) -> None:
        from cpro.analytics.clickhouse import sink_of
        from cpro.analytics.reads import reader_of

        settings = Settings(data_dir=data_dir, clickhouse_analytics=ClickhouseAnalytics(enabled=True))
        self.sink = sink_of(settings)
        self.reader = reader_of(settings)
        self.logged: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self.logged.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("cpro").addHandler(handler)
        logging.getLogger("cpro").setLevel(logging.INFO)

    def open(self) -> None:
        self.sink.open()

    def write(self, token: str, table: int, rows: list[tuple]) -> None:
        self.sink.write(batch_of(BY_NUMBER[table], rows, token))

    def ask(self, sql: str, kind: str = "json") -> bytes:
        return self.reader.ask(sql, kind)

    def run(self, sql: str) -> list[tuple]:
        """With all rights."""
        client = self.sink._nodes[0].client.connect()
        if sql.lstrip().lower().startswith("select"):
            return list(client.query(sql).result_rows)
        client.command(sql)
        return []

    def insert(self, table: str, block: bytes) -> int:
        return self.sink._nodes[0].client.connect().raw_insert(table, None, block, fmt="Native").written_rows

    def log(self) -> list[str]:
        return self.logged

    def close(self) -> None:
        self.reader.close()
        self.sink.close()


def main() -> None:
    replies = sys.stdout.buffer
    calls = Calls(sys.argv[1])
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply = ("result", getattr(calls, name)(*arguments))
        except Exception as error:
            reply = ("error", error if isinstance(error, CproError) else RuntimeError(repr(error)))
        pickle.dump(reply, replies)
        replies.flush()


if __name__ == "__main__":
    main()
