"""Logging as operators expect it: text on a terminal, else one JSON object a line, both on stderr.

Level names are Centrifugo's. Fields beside the message travel in `extra=fields(...)`.
"""

import json
import logging
import os
import queue
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from cpro.clock import boot_ns

TRACE = 5
LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "none": logging.CRITICAL + 1,
}
WAITING_LINES = 10_000
FLUSH_S = 1.0
_NAMES = {number: name for name, number in LEVELS.items()}


def fields(**values: Any) -> dict[str, Any]:  # noqa: ANN401 -- whatever JSON can carry
    """Named values for one log line: `log.info("ready", extra=fields(proxy="127.0.0.1:8001"))`."""
    return {"fields": values}


def set_level(level: str) -> None:
    """Apply one of `LEVELS` to everything this process logs."""
    logging.getLogger().setLevel(LEVELS[level])


def start(level: str) -> None:
    """Send this process's log to stderr."""
    if sys.stderr is None:  # started with it closed; nothing else may get its descriptor
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)  # noqa: SIM115 -- as long as we live
    logging.addLevelName(TRACE, "TRACE")
    handler = BackgroundHandler(sys.stderr.fileno())
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


class BackgroundHandler(logging.Handler):
    """Writes in a thread of its own: a reader of the log that stalls costs lines of it, never service."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING_LINES)  # None ends the thread
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, unless that takes longer than `FLUSH_S`."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(FLUSH_S)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            self._put(line)
            if self._dropped and self._lines.empty():
                dropped, self._dropped = self._dropped, 0
                values = {"msg": "log lines dropped", "levelno": logging.WARNING, "fields": {"lines": dropped}}
                self._put(self.format(logging.makeLogRecord(values)))

    def _put(self, line: str) -> None:
        data = memoryview(line.encode(errors="backslashreplace") + b"\n")
        with suppress(OSError):  # nobody reads it, or its disk is full
            while data:
                data = data[os.write(self._fd, data) :]


class JsonFormatter(logging.Formatter):
    """`{"level":…,"time":…,"message":…,fields…}` on one line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:30:01 info  message  name=value` for people."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = _NAMES.get(record.levelno, record.levelname.lower())
        words = [f"{clock} {level:5} {record.getMessage()}"]
        words += [f"{name}={value}" for name, value in getattr(record, "fields", {}).items()]
        text = "  ".join(words)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class Occasional:
    """Says a thing at most once per `every_s` seconds for each key, with how often it happened meanwhile."""

    def __init__(self, log: logging.Logger, every_s: float = 60.0) -> None:
        self._log = log
        self._every_s = every_s
        self._said_at: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def warning(self, key: str, message: str, **values: Any) -> None:  # noqa: ANN401 -- whatever JSON can carry
        now = boot_ns() / 1e9
        times = self._unsaid.get(key, 0) + 1
        if now - self._said_at.get(key, -self._every_s) < self._every_s:
            self._unsaid[key] = times
            return
        self._said_at[key] = now
        self._unsaid[key] = 0
        self._log.warning(message, extra=fields(times=times, **values))
