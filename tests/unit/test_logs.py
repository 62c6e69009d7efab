"""The log: what a line looks like, and that nobody waits for whoever reads it."""

import json
import logging
import os
import time

import pytest

from cpro import logs


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        os.close(fd)


@pytest.fixture
def log_to(monkeypatch):
    """A logger that writes to a file descriptor as cpro does, and the handler behind it."""
    handlers = []

    def make(fd):
        handler = logs.BackgroundHandler(fd)
        handler.setFormatter(logs.JsonFormatter())
        handlers.append(handler)
        logger = logging.Logger("test")
        logger.addHandler(handler)
        return logger, handler

    yield make
    for handler in handlers:
        handler.close()


def lines_of(fd: int) -> list[dict]:
    return [json.loads(line) for line in os.read(fd, 1 << 20).decode().splitlines()]


def test_a_line_has_level_time_message_and_fields(pipe, log_to):
    logger, handler = log_to(pipe[1])
    logger.warning("hello %s", "you", extra=logs.fields(user="42", count=3))
    handler.close()
    (line,) = lines_of(pipe[0])
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "warn", "message": "hello you", "user": "42", "count": 3}


def test_an_exception_stays_on_one_line(pipe, log_to):
    logger, handler = log_to(pipe[1])
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        logger.error("failed", exc_info=error)
    handler.close()
    (line,) = lines_of(pipe[0])
    assert "ValueError: a\nb" in line["error"]


def test_a_reader_that_stalls_costs_lines_that_are_counted(pipe, log_to, monkeypatch):
    monkeypatch.setattr(logs, "WAITING_LINES", 10)
    logger, _ = log_to(pipe[1])
    said = 2000
    for number in range(said):
        logger.warning("x" * 1000, extra=logs.fields(number=number))  # would block for ever if anybody waited
    data, accounted, until = b"", 0, time.monotonic() + 5
    while accounted < said:
        assert time.monotonic() < until, f"{said - accounted} lines are neither written nor counted"
        data += os.read(pipe[0], 1 << 16)
        *whole, _ = data.split(b"\n")
        accounted = sum(line.get("lines", 1) for line in map(json.loads, whole))
    assert accounted == said
    assert b"log lines dropped" in data


def test_the_same_thing_is_said_once_a_minute_with_how_often_it_happened(caplog, monkeypatch):
    now_ns = 0
    monkeypatch.setattr(logs, "boot_ns", lambda: now_ns)
    occasional = logs.Occasional(logging.getLogger("test"))
    for second in (0, 1, 59, 60, 61):
        now_ns = second * 10**9
        occasional.warning("key", "again")
        occasional.warning("other", "else")
    assert [(record.message, record.fields["times"]) for record in caplog.records] == [
        ("again", 1),
        ("else", 1),
        ("again", 3),
        ("else", 3),
    ]
