"""What an application does in a day, in some seconds: every command and push of Centrifugo's that an SDK has.

Played once straight to Centrifugo and once through the gateway it must look the same on the wire. Each step waits for
what it leads to, so that only what Centrifugo itself leaves open (what comes first, a push or a reply) may differ.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from centrifuge.protocol.client_pb2 import Command, Reply
from google.protobuf.internal.decoder import _DecodeVarint
from google.protobuf.json_format import MessageToDict

from tests.support.backend import Received
from tests.support.sdks import Refusal, Sdk, open_sdk
from tests.support.sockets import KEY, token_of
from tests.support.wiretap import Take, Wiretap

Api = Callable[[str, dict], dict]
CENTRIFUGO = {
    "client": {
        "token": {"hmac_secret_key": KEY},
        "allow_anonymous_connect_without_token": True,
        "proxy": {"refresh": {"enabled": False}},  # with it clients aren't asked to refresh
    },
    "channel": {
        "without_namespace": {
            "allow_history_for_client": True,
            "allow_history_for_anonymous": True,
            "allow_presence_for_client": True,
            "allow_presence_for_anonymous": True,
            "presence": True,
            "join_leave": True,
            "force_push_join_leave": True,
            "force_recovery": True,
            "history_size": 100,
            "history_ttl": "600s",
            "allowed_delta_types": ["fossil"],
            "delta_publish": True,
        }
    },
}
"""Laid over what `cpro centrifugoconfig` prints."""


def application(received: Received) -> object:
    """Lets in whoever gives a name, or nobody's; echoes, or fails on demand."""
    event = received.path.rpartition("/")[2]
    body = received.json
    if event == "connect":
        return {"result": {"user": body.get("data", {}).get("name", ""), "data": {"greeting": "hello"}}}
    if event == "rpc":
        if body["method"] == "fails":
            return {"error": {"code": 1234, "message": "as asked for", "temporary": False}}
        return {"result": {"data": body["data"]}}
    return {"result": {}}


@dataclass(frozen=True)
class Way:
    """How a client says who it is."""

    data: dict | None = None
    by_token: bool = False


WAYS = {"token": Way(by_token=True), "proxy": Way(data={"name": "ann"}), "anonymous": Way(data={})}


async def play(kind: str, tap: Wiretap, api: Api, way: Way, tag: str) -> None:
    """`tag` names this showing, in the channels it uses."""
    options: dict = {"data": way.data}
    if way.by_token:  # it expires in the middle, though not before node is up
        seconds = 5 if kind.startswith("js") else 3
        options |= {"token": token_of("ann", lasts_s=seconds), "next_token": token_of("ann")}
    async with open_sdk(kind, tap.url, **options) as sdk:
        await Showing(sdk, tap, api, tag).play()


class Showing:
    """One client going through it."""

    def __init__(self, sdk: Sdk, tap: Wiretap, api: Api, tag: str) -> None:
        self._sdk, self._tap, self._api, self._tag = sdk, tap, api, tag
        self._published: dict[str, int] = {}

    async def play(self) -> None:
        await self._sdk.ready()
        await self.talk()
        await self.look()
        await self.ask()
        await self.differences()
        await self.be_cut_off()
        await self.be_sent_away()

    def channel(self, name: str) -> str:
        return f"{self._tag}-{name}"

    async def call(self, method: str, **body: object) -> dict:
        return await asyncio.to_thread(self._api, method, body)

    async def publish(self, name: str, data: object, **options: object) -> None:
        """As the backend; what is subscribed to comes."""
        await self.call("publish", channel=self.channel(name), data=data, **options)
        await self.comes(name, 1)

    async def comes(self, name: str, count: int) -> None:
        total = self._published[name] = self._published.get(name, 0) + count
        await self._sdk.until("publication", total, channel=self.channel(name))

    async def talk(self) -> None:
        await self._sdk.subscribed(self.channel("talk"))
        await self._sdk.publish(self.channel("talk"), {"n": 1})
        await self.comes("talk", 1)
        await self._sdk.publish_all(self.channel("talk"), 1, 2, [3])
        await self.comes("talk", 3)
        await self.publish("talk", {"by": "the backend"}, tags={"a": "b"})
        await refused(self._sdk.publish("no:such namespace", {}))

    async def look(self) -> None:
        await self._sdk.subscribed(self.channel("feed"), recoverable=True, join_leave=True)
        await self.publish("feed", "first")
        await self._sdk.history(self.channel("feed"), 10)
        await self._sdk.presence(self.channel("feed"))
        await self._sdk.presence_stats(self.channel("feed"))
        await self._sdk.subscribe("no:such namespace")
        await self._sdk.until("unsubscribed", channel="no:such namespace")

    async def ask(self) -> None:
        await self._sdk.rpc("echo", {"question": "strange \u017f\u2013 \xfcn\xefcode \"'\\"})
        await refused(self._sdk.rpc("fails", {}))

    async def differences(self) -> None:
        await self._sdk.subscribed(self.channel("document"), delta=True)
        text = "a long text that hardly changes; " * 10
        for number in range(3):
            await self.publish("document", {"text": text, "revision": number}, delta=True)

    async def be_cut_off(self) -> None:
        await self._refreshed()

        async def meanwhile() -> None:
            await self._sdk.until("connecting", 2)
            for number in range(2):
                await self.call("publish", channel=self.channel("feed"), data={"missed": number})

        await self._tap.while_cut(meanwhile)
        await self._sdk.until("connected", 2)
        await self.comes("feed", 2)
        for name in ("talk", "document"):
            await self._sdk.until("subscribed", 2, channel=self.channel(name))

    async def _refreshed(self) -> None:
        """Where it began with a token that expires, wait until it has another one."""
        (take,) = self._tap.takes
        if not any(b'"token"' in one or b"eyJ" in one for one in take.messages("client")[:1]):
            return
        async with asyncio.timeout(15):
            while sum(b"eyJ" in one for one in self._tap.takes[0].messages("client")) < 2:
                await asyncio.sleep(0.02)
            await self._sdk.rpc("echo", "whose reply is behind that to the refresh")

    async def be_sent_away(self) -> None:
        await self._sdk.unsubscribe(self.channel("document"))
        await self._sdk.rpc("echo", "whose reply is behind that to the unsubscribe")
        clients = await self.call("presence", channel=self.channel("feed"))
        (client,) = clients["presence"]
        user = clients["presence"][client].get("user", "")
        await self.call("unsubscribe", channel=self.channel("talk"), user=user, client=client)
        await self._sdk.until("unsubscribed", channel=self.channel("talk"))
        gone = {"code": 4501, "reason": "enough"}
        await self.call("disconnect", user=user, client=client, disconnect=gone)
        await self._sdk.until("disconnected", code=4501)


async def refused(asked: object) -> None:
    try:
        await asked
    except Refusal:
        return
    raise AssertionError("it was not refused")


# -- what two showings have in common

VOLATILE = {"client", "epoch", "session", "node", "time", "ttl", "token"}
"""Members that differ from one showing to the next by their nature."""


def transcript(takes: list[Take], tag: str) -> list[dict]:
    """Connection by connection: what the client said in order; the replies; the pushes to each channel in order; and
    how it ended. Pings, and frames' borders, which go by the clock, are left out."""
    return [_connection(take, tag) for take in takes]


def _connection(take: Take, tag: str) -> dict:
    is_protobuf = any(opcode == 2 for _, opcode, _ in take.frames)
    said = [_masked(one, tag) for one in _decoded(take.messages("client"), is_protobuf, Command)]
    heard = [_masked(one, tag) for one in _decoded(take.messages("server"), is_protobuf, Reply)]
    pushes: dict[str, list] = {}
    for one in heard:
        if "push" in one:
            pushes.setdefault(one["push"].get("channel", ""), []).append(one["push"])
    return {
        "protocol": "protobuf" if is_protobuf else "json",
        "said": said,
        "replies": {one["id"]: one for one in heard if "id" in one},
        "order of replies": [one["id"] for one in heard if "id" in one],
        "pushes": pushes,
        "other": [one for one in heard if "push" not in one and "id" not in one],
        "ends": [(who, payload) for who, opcode, payload in take.frames if opcode == 8],
    }


def _decoded(messages: list[bytes], is_protobuf: bool, kind: type) -> list[dict]:
    found = _from_protobuf(messages, kind) if is_protobuf else _from_json(messages)
    return [one for one in found if one]


def _from_json(messages: list[bytes]) -> list[dict]:
    return [json.loads(line) for message in messages for line in message.split(b"\n") if line]


def _from_protobuf(messages: list[bytes], kind: type) -> list[dict]:
    found = []
    for message in messages:
        at = 0
        while at < len(message):
            size, at = _DecodeVarint(message, at)
            found.append(MessageToDict(kind.FromString(message[at : at + size]), preserving_proto_field_name=True))
            at += size
    return found


def _masked(value: object, tag: str) -> object:
    if isinstance(value, dict):
        return {_masked_text(key, tag): "…" if key in VOLATILE else _masked(inner, tag) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(one, tag) for one in value]
    return _masked_text(value, tag) if isinstance(value, str) else value


def _masked_text(text: str, tag: str) -> str:
    """Ids of clients, which are keys in presence, and the tag."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "…", text)
    return text.replace(f"{tag}-", "")
