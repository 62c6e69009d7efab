"""Centrifugo's official clients behind one face, so that a proof is written once and holds for each of them.

What they tell becomes `Sdk.events`: dicts with `event` (connecting, connected, disconnected, error, subscribing,
subscribed, unsubscribed, sub_error, publication) and what the client said with it (code, channel, data, user).
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from centrifuge import Client, ClientEventHandler, DeltaType, Subscription, SubscriptionEventHandler
from centrifuge.exceptions import ReplyError

JS_FOLDER = Path(__file__).parents[1] / "e2e" / "js"


class Refusal(Exception):  # noqa: N818 - what it is, not whose fault
    """The error a client was given for its operation."""

    def __init__(self, code: int, message: str, temporary: bool):
        super().__init__(f"{code} {message} (temporary: {temporary})")
        self.code, self.message, self.temporary = code, message, temporary

    @property
    def error(self) -> dict:
        return {"code": self.code, "message": self.message, "temporary": self.temporary}


class Sdk:
    """A client that is connecting or connected."""

    def __init__(self) -> None:
        self.events: list[dict] = []
        self._changed = asyncio.Event()

    def seen(self, event: str, **fields: object) -> list[dict]:
        """The events of this name so far that carry these fields."""
        wanted = {"event": event, **fields}
        return [one for one in self.events if all(one.get(name) == value for name, value in wanted.items())]

    async def until(self, event: str, count: int = 1, timeout_s: float = 10.0, **fields: object) -> dict:
        """The event, when it has come `count` times since the start."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(found := self.seen(event, **fields)) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{count} times {event} {fields} did not come; so far: {self.events}") from None
        return found[count - 1]

    async def ready(self) -> "Sdk":
        await self.until("connected")
        return self

    async def subscribed(self, channel: str, **options: bool) -> None:
        """Subscribe and wait until that is done."""
        await self.subscribe(channel, **options)
        await self.until("subscribed", channel=channel)

    async def subscribe(self, channel: str, **options: bool) -> None:
        """Options: `recoverable`, `join_leave`, `delta`."""
        raise NotImplementedError

    async def publish_all(self, channel: str, *datas: object) -> None:
        """Publish several at once, in one message where the client has batches."""
        raise NotImplementedError

    async def publish(self, channel: str, data: object) -> None:
        """Raises Refusal when the server says no."""
        raise NotImplementedError

    async def rpc(self, method: str, data: object) -> object:
        """What the server answers; raises Refusal."""
        raise NotImplementedError

    async def history(self, channel: str, limit: int) -> list[object]:
        """Data of the last publications of a channel subscribed to; raises Refusal. So do the next two."""
        raise NotImplementedError

    async def presence(self, channel: str) -> list[str]:
        """The users in a channel subscribed to."""
        raise NotImplementedError

    async def presence_stats(self, channel: str) -> int:
        """How many clients are in a channel subscribed to."""
        raise NotImplementedError

    async def unsubscribe(self, channel: str) -> None:
        raise NotImplementedError

    def _tell(self, event: str, **fields: object) -> None:
        self.events.append({"event": event, **fields})
        self._changed.set()


class PythonSdk(Sdk):
    """centrifuge-python; with protobuf the payload stays JSON, as bytes."""

    def __init__(
        self, url: str, *, protobuf: bool, data: object, headers: dict[str, str], token: str, next_token: str = ""
    ):
        super().__init__()
        self._protobuf = protobuf
        self._subscriptions: dict[str, Subscription] = {}
        events = ClientEventHandler()
        for name in ("connecting", "connected", "disconnected", "error"):
            setattr(events, f"on_{name}", self._teller(name))
        self.client = Client(
            url,
            events=events,
            token=token,
            get_token=self._returning(next_token) if next_token else None,
            use_protobuf=protobuf,
            data=None if data is None else self._encode(data),
            headers=headers,
            max_reconnect_delay=1.0,
            proxy=None,
        )

    def _teller(self, event: str, **fixed: object):
        async def tell(context: object) -> None:
            error = getattr(context, "error", None)  # the server's own error is wrapped in one of the client's
            code = error.code if isinstance(error, ReplyError) else getattr(context, "code", None)
            self._tell(event, code=code, **fixed)

        return tell

    @staticmethod
    def _returning(token: str):
        async def get_token() -> str:
            return token

        return get_token

    async def subscribe(self, channel: str, **options: bool) -> None:
        events = SubscriptionEventHandler()
        for name in ("subscribing", "subscribed", "unsubscribed"):
            setattr(events, f"on_{name}", self._teller(name, channel=channel))
        events.on_error = self._teller("sub_error", channel=channel)

        async def on_publication(context):
            user = context.pub.info.user if context.pub.info else None
            self._tell("publication", channel=channel, data=self._decode(context.pub.data), user=user)

        events.on_publication = on_publication
        delta = DeltaType.FOSSIL if options.pop("delta", False) else None
        self._subscriptions[channel] = self.client.new_subscription(
            channel, events=events, max_resubscribe_delay=1.0, delta=delta, **options
        )
        await self._subscriptions[channel].subscribe()

    async def unsubscribe(self, channel: str) -> None:
        await self._subscriptions[channel].unsubscribe()

    async def history(self, channel: str, limit: int) -> list[object]:
        with _as_refusal():
            found = await self._subscriptions[channel].history(limit=limit)
        return [self._decode(one.data) for one in found.publications]

    async def presence(self, channel: str) -> list[str]:
        with _as_refusal():
            found = await self._subscriptions[channel].presence()
        return sorted(one.user for one in found.clients.values())

    async def presence_stats(self, channel: str) -> int:
        with _as_refusal():
            return (await self._subscriptions[channel].presence_stats()).num_clients

    async def publish(self, channel: str, data: object) -> None:
        with _as_refusal():
            await self.client.publish(channel, self._encode(data))

    async def publish_all(self, channel: str, *datas: object) -> None:
        await asyncio.gather(*(self.publish(channel, data) for data in datas))

    async def rpc(self, method: str, data: object) -> object:
        with _as_refusal():
            return self._decode((await self.client.rpc(method, self._encode(data))).data)

    def _encode(self, data: object) -> object:
        return json.dumps(data).encode() if self._protobuf else data

    def _decode(self, data: object) -> object:
        return json.loads(data) if self._protobuf and data is not None else data


class _as_refusal:  # noqa: N801 - used like a function
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, ReplyError):
            raise Refusal(error.code, error.message, error.temporary) from None


class JsSdk(Sdk):
    """npm `centrifuge`, in a node process that takes orders line by line (tests/e2e/js/driver.mjs)."""

    def __init__(self, process: asyncio.subprocess.Process):
        super().__init__()
        self._process = process
        self._waiting: dict[int, asyncio.Future] = {}
        self._orders = 0

    async def read(self) -> None:
        """Take in what node says until it ends."""
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if "event" in message:
                self._tell(**message)
            else:
                self._waiting.pop(message["id"]).set_result(message)

    async def subscribe(self, channel: str, **options: bool) -> None:
        await self._order("subscribe", channel, options)

    async def publish_all(self, channel: str, *datas: object) -> None:
        await self._order("publishAll", channel, datas)

    async def publish(self, channel: str, data: object) -> None:
        await self._order("publish", channel, data)

    async def rpc(self, method: str, data: object) -> object:
        return (await self._order("rpc", method, data)).get("data")

    async def unsubscribe(self, channel: str) -> None:
        await self._order("unsubscribe", channel)

    async def history(self, channel: str, limit: int) -> list[object]:
        return await self._order("history", channel, limit)

    async def presence(self, channel: str) -> list[str]:
        return sorted(await self._order("presence", channel))

    async def presence_stats(self, channel: str) -> int:
        return await self._order("presenceStats", channel)

    async def map_subscribe(self, channel: str) -> None:
        await self._order("mapSubscribe", channel)

    async def map_publish(self, channel: str, key: str, data: object) -> None:
        await self._order("mapPublish", channel, key, data)

    async def map_remove(self, channel: str, key: str) -> None:
        await self._order("mapRemove", channel, key)

    async def _order(self, order: str, *arguments: object) -> object:
        self._orders += 1
        done = self._waiting[self._orders] = asyncio.get_running_loop().create_future()
        message = {"id": self._orders, "order": order, "arguments": arguments}
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        answer = await asyncio.wait_for(done, 15)
        if error := answer.get("error"):
            raise Refusal(error["code"], error["message"], error.get("temporary", False))
        return answer.get("result")


KINDS = ("python-json", "python-protobuf", "js-json")
SOCKET_KINDS = (*KINDS, "js-protobuf")
"""All that speak WebSocket."""
HTTP_KINDS = ("js-http_stream", "js-http_stream-protobuf", "js-sse")
"""Those that need no WebSocket."""


def transport_of(kind: str) -> str:
    """Its name in Centrifugo."""
    name = kind.split("-")[1]
    return "websocket" if name in ("json", "protobuf") else name


def why_missing(kind: str) -> str | None:
    """Why tests of this kind can't run here, if they can't."""
    if not kind.startswith("js-"):
        return None
    if shutil.which("node") is None:
        return "no node on PATH"
    if not all((JS_FOLDER / "node_modules" / name).is_dir() for name in ("centrifuge", "eventsource")):
        return "npm install --prefix tests/e2e/js has not been run"
    return None


@asynccontextmanager
async def open_sdk(
    kind: str,
    url: str,
    *,
    data: object = None,
    headers: dict[str, str] | None = None,
    token: str = "",
    next_token: str = "",
    emulation: str = "",
) -> AsyncIterator[Sdk]:
    """A client of this kind, told to connect to the WebSocket at `url`, or by another transport of the same server.

    `headers` go with its requests (not those of SSE); `emulation` is where posts go, if to another server. When the
    server says that `token` expires it is refreshed with `next_token`."""
    if kind.startswith("js-"):
        options = {"data": data, "headers": headers or {}, "token": token, "nextToken": next_token}
        async with _node({**options, **_js_transport(kind, url, emulation)}) as process:
            sdk = JsSdk(process)
            reading = asyncio.create_task(sdk.read())
            yield sdk
            process.stdin.close()
            await reading
        return
    protobuf = kind == "python-protobuf"
    sdk = PythonSdk(url, protobuf=protobuf, data=data, headers=headers or {}, token=token, next_token=next_token)
    await sdk.client.connect()
    try:
        yield sdk
    finally:
        await sdk.client.disconnect()
        closing = sdk.client._background_tasks  # it closes its socket there and lets nobody wait for it
        await asyncio.gather(*closing, return_exceptions=True)


def _js_transport(kind: str, url: str, emulation: str) -> dict:
    name, protobuf = transport_of(kind), kind.endswith("-protobuf")
    if name == "websocket":
        return {"url": url, "transport": name, "protobuf": protobuf}
    base = url.replace("ws:", "http:").removesuffix("/connection/websocket")
    return {
        "url": f"{base}/connection/{name}",
        "transport": name,
        "protobuf": protobuf,
        "emulation": f"{emulation or base}/emulation",
    }


@asynccontextmanager
async def _node(options: dict) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    driver = str(JS_FOLDER / "driver.mjs")
    process = await asyncio.create_subprocess_exec("node", driver, json.dumps(options), stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
