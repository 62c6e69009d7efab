"""A far side of the gateway's that is no Centrifugo: answers as a script has it, and shows what reached it."""

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import uvloop

from cpro._fast.wsframe import BINARY, CLOSE, PING, TEXT, ClientFrames, build_close, build_frame

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MOST: Final = 1 << 20


class Visitor(asyncio.Protocol):
    """One connection of the gateway's. Everything runs in the far side's loop."""

    def __init__(self, far: "FarSide") -> None:
        self.far = far
        self.head = b""
        self.messages: list[bytes] = []
        self.user = ""
        self.is_full = False
        self.is_closing = False
        self.on_room: Callable[[], object] = lambda: None
        self._frames = ClientFrames(MOST)
        self._is_upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.far.visitors.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.far.visitors.discard(self)

    def data_received(self, data: bytes) -> None:
        if not self._is_upgraded:
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return
            self.head, _, data = self.head.partition(b"\r\n\r\n")
            self._upgrade()
        for event in self._frames.feed(data):
            self._on_event(event)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self.on_room()

    def _upgrade(self) -> None:
        self._is_upgraded = True
        lines = [line.partition(b": ") for line in self.head.split(b"\r\n")[1:]]
        headers = {name.lower(): value for name, _, value in lines}
        key = hashlib.sha1(headers[b"sec-websocket-key"] + GUID).digest()
        answer = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
        answer.append(b"Sec-WebSocket-Accept: " + base64.b64encode(key))
        if protocol := headers.get(b"sec-websocket-protocol"):
            answer.append(b"Sec-WebSocket-Protocol: " + protocol)
        self.transport.write(b"\r\n".join([*answer, b"", b""]))

    def _on_event(self, event) -> None:
        if event.opcode in (TEXT, BINARY):
            self.messages.append(event.payload)
            self.far.script(self, event.payload)
        elif event.opcode == CLOSE:
            if not self.is_closing:
                self.transport.write(build_frame(CLOSE, event.payload[:2]))
            self.transport.close()
        elif event.opcode == PING:
            self.transport.write(build_frame(10, event.payload))

    def say(self, *messages: dict | bytes) -> None:
        """Send each as a frame."""
        for one in messages:
            payload = one if isinstance(one, bytes) else json.dumps(one, separators=(",", ":")).encode()
            self.transport.write(build_frame(TEXT, payload))

    def say_raw(self, frames: bytes, *, and_close: bool = False) -> None:
        """Send frames as they are; `and_close` when the last of them is a close frame."""
        self.is_closing = and_close
        self.transport.write(frames)

    def close(self, code: int, reason: bytes) -> None:
        self.transport.write(build_close(code, reason))
        self.transport.close()


Script = Callable[[Visitor, bytes], object]


def obliging(visitor: Visitor, payload: bytes) -> None:
    """Lets everybody in and says yes to everything; a publication goes to all that have come."""
    for line in payload.split(b"\n"):
        command = json.loads(line)
        kind = next((key for key in command if key != "id"), "")
        if kind:
            visitor.say({"id": command["id"], kind: welcome(visitor) if kind == "connect" else {}})
        if kind == "publish":
            pushed = {"push": {"channel": command["publish"]["channel"], "pub": {"data": command["publish"]["data"]}}}
            for one in list(visitor.far.visitors):
                one.say(pushed)


def welcome(visitor: Visitor) -> dict:
    return {"client": f"client-{id(visitor):x}", "version": "6.9.1 OSS", "ping": 25, "pong": True}


class FarSide:
    """Use as a context manager. `visitors`: the connections that are open now."""

    def __init__(self, script: Script = obliging) -> None:
        self.script = script
        self.visitors: set[Visitor] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "FarSide":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(10)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def do(self, what: Callable[[], object]) -> object:
        """Call it in the far side's loop; what it returns."""

        async def call() -> object:
            return what()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server = await self.loop.create_server(lambda: Visitor(self), "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for visitor in list(self.visitors):
            visitor.transport.abort()
        with suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 5)
