"""Questions to the analyst process, over a socket in `data_dir` that only its owner can open.

One question a connection. Both sides send frames: a length of 4 bytes, big-endian, and as many bytes of JSON; a result
follows its answer's frame raw, `size` bytes of it. The engine has one reader of its own here, in its own thread, so
that inserts go on while a query runs; queries wait for each other.
"""

import asyncio
import logging
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from cpro.errors import CproError, StoreError, StoreUnavailableError

log = logging.getLogger(__name__)

SOCKET: Final = "query.sock"
MOST_QUESTION_BYTES: Final = 1 << 20
ASKED_WITHIN_S: Final = 5.0
"""For a client to have sent its question."""
LAST_WAIT_S: Final = 1.0
Format = Literal["table", "csv", "json"]

Ask = Callable[[str, Format], bytes]
"""Runs SQL, read-only, and returns its result in one of the formats; StoreError says what is wrong with it."""


class Question(msgspec.Struct, forbid_unknown_fields=True):
    sql: str = ""
    """Empty: the state of the sinks."""
    format: Format = "table"


class Answer(msgspec.Struct):
    error: str = ""
    size: int = 0
    """Of the result that follows."""


class QueryServer:
    """Answers on the socket; `ask` is called in a thread of its own, one question after the other."""

    def __init__(
        self, data_dir: Path, ask: Ask, status: Callable[[], dict[str, Any]], done: Callable[[], None] = lambda: None
    ) -> None:
        """`done` is called in that thread after the last question."""
        self._data_dir = data_dir
        self._done = done
        self._ask = ask
        self._status = status
        self._questions: queue.SimpleQueue[tuple[Question, Future[bytes]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer_all, name="cpro-query", daemon=True)

    async def start(self) -> None:
        """Raises OSError where the folder takes no socket."""
        self._thread.start()
        with _short_path(self._data_dir) as path:
            with suppress(FileNotFoundError):
                os.unlink(path)  # of a process that was killed: the folder is ours alone
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            before = os.umask(0o177)
            try:
                listener.bind(path)
            finally:
                os.umask(before)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def close(self) -> None:
        """Answer no more; a query that still runs is left behind after `LAST_WAIT_S`."""
        self._server.close()
        with suppress(OSError):
            os.unlink(self._data_dir / SOCKET)
        self._questions.put(None)
        await asyncio.to_thread(self._thread.join, LAST_WAIT_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASKED_WITHIN_S):
                size = int.from_bytes(await reader.readexactly(4), "big")
                if size > MOST_QUESTION_BYTES:
                    return
                question = msgspec.json.decode(await reader.readexactly(size), type=Question)
            writer.write(await self._reply(question))
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, msgspec.DecodeError, OSError):
            pass  # whoever asked is gone, or is nobody that we know
        finally:
            writer.close()

    async def _reply(self, question: Question) -> bytes:
        try:
            result = await self._result(question)
        except CproError as error:
            return _frame(Answer(str(error)))
        except Exception as error:  # a client must not wait for ever because of a bug
            log.exception("question can't be answered")
            return _frame(Answer(f"{type(error).__name__}: {error}"))
        return _frame(Answer(size=len(result))) + result

    async def _result(self, question: Question) -> bytes:
        if not question.sql:
            return msgspec.json.encode(await asyncio.to_thread(self._status))
        answered: Future[bytes] = Future()
        self._questions.put((question, answered))
        return await asyncio.wrap_future(answered)

    def _answer_all(self) -> None:
        while (asked := self._questions.get()) is not None:
            question, answered = asked
            if not answered.set_running_or_notify_cancel():
                continue
            try:
                answered.set_result(self._ask(question.sql, question.format))
            except Exception as error:
                answered.set_exception(error)
        self._done()


def ask(data_dir: Path, question: Question) -> bytes:
    """Ask the process that runs there: StoreError has what it says; StoreUnavailableError where there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel, channel.makefile("rb") as replies:
        try:
            with _short_path(data_dir) as path:
                channel.connect(path)
            channel.sendall(_frame(question))
            answer = msgspec.json.decode(_read(replies, int.from_bytes(_read(replies, 4), "big")), type=Answer)
        except (OSError, msgspec.DecodeError) as error:
            raise StoreUnavailableError(f"nothing answers at {data_dir / SOCKET}: {error}") from error
        if answer.error:
            raise StoreError(answer.error)
        return _read(replies, answer.size)


def _read(replies: Any, size: int) -> bytes:  # noqa: ANN401 -- a file
    data: bytes = replies.read(size)
    if len(data) < size:
        raise StoreUnavailableError("the connection to the running cpro broke")
    return data


def _frame(message: msgspec.Struct) -> bytes:
    data = msgspec.json.encode(message)
    return struct.pack(">I", len(data)) + data


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """The socket's path by way of an open folder: what the address of a socket can hold ends at 107 bytes (unix(7))."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)
