"""A worker, or the analyst process, as the supervisor sees it."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection as Channel

from cpro.errors import StartError
from cpro.run.orders import AnalystOrders, Failed, Orders


class Child:
    """One running process. Create with `start`, which returns when it is ready."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self._name = name
        self._process = process
        self._channel = channel
        self._answers: asyncio.Queue[object] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(channel.fileno(), self._on_message)

    @classmethod
    async def start(cls, orders: Orders | AnalystOrders, fds: tuple[int, ...] = (), name: str = "worker") -> "Child":
        """Run `cpro.run.{name}` in a fresh interpreter with `fds` open in it; StartError has its own reason."""
        ours, theirs = Pipe()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"cpro.run.{name}", str(theirs.fileno()), pass_fds=(theirs.fileno(), *fds)
        )
        theirs.close()
        child = cls(name, process, ours)
        child.tell(replace(orders, supervisor=os.getpid()))
        await child.answer()
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, message: object) -> None:
        """Send a message; a process that has just died doesn't mind."""
        with suppress(OSError):
            self._channel.send(message)

    async def answer(self) -> None:
        """Wait for the next `Ready`; raises StartError when the process failed or died instead."""
        answer = await self._answers.get()
        if isinstance(answer, Failed):
            raise StartError(answer.reason)
        if answer is None:
            self._answers.put_nowait(None)  # whoever asks next is told the same
            raise StartError(f"{self._name} {self.pid} died")

    async def wait(self) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        status = await self._process.wait()
        self._forget()
        return status

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def _on_message(self) -> None:
        try:
            self._answers.put_nowait(self._channel.recv())
        except (EOFError, OSError):
            self._forget()

    def _forget(self) -> None:
        if not self._channel.closed:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            self._answers.put_nowait(None)
