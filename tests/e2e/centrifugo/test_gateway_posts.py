"""Posts to `/emulation`: wherever they land they reach their session, and nothing else reaches anything."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cpro._fast.emulation import build_emulation
from tests.e2e.centrifugo.conftest import OpenSdk, StartStack, eventually, start_alone, without_proxies
from tests.support.centrifugo import Centrifugo, free_port
from tests.support.sdks import Refusal
from tests.support.service import Service, limits
from tests.support.sockets import token_of
from tests.support.streams import Stream, emulate
from tests.support.websocket import RawWebSocket

pytestmark = pytest.mark.centrifugo

SECRET = "one for all nodes of this test"
OCTETS = b"application/octet-stream"


def connect_of(user: str) -> str:
    return json.dumps({"id": 1, "connect": {"token": token_of(user)}})


def presence(number: int, channel: str = "news") -> str:
    return json.dumps({"id": number, "presence": {"channel": channel}})


def test_posts_that_land_at_any_worker_reach_their_session(stack: StartStack):
    started = start_alone(stack, {"workers": 3})
    address = started.service.gateway
    with Stream(address, connect_of("ann")) as ann:
        ann.opened()
        for number in range(2, 26):  # each over a connection of its own: the kernel picks the worker
            assert ann.post(presence(number)) == 204
            assert ann.next() == {"id": number, "presence": {"presence": {}}}


class Nodes:
    """Two gateways before one Centrifugo."""

    def __init__(self, centrifugo: Centrifugo, first: Service, second: Service):
        self.centrifugo, self.first, self.second = centrifugo, first, second


@pytest.fixture
def nodes(service: Callable[..., Service], tmp_path) -> Iterator[Callable[..., Nodes]]:
    with ExitStack() as running:

        def start(settings: dict | None = None) -> Nodes:
            port = free_port()

            def one() -> Service:
                gateway = {"enabled": True, "address": "127.0.0.1:0", "centrifugo": [f"http://127.0.0.1:{port}"]}
                gateway["internal_address"] = f"127.0.0.1:{free_port()}"
                return service({"secret": SECRET, "gateway": gateway, **(settings or {})})

            config: dict = {}
            without_proxies(config)
            centrifugo = running.enter_context(Centrifugo(tmp_path / "centrifugo", config, port))
            return Nodes(centrifugo, one(), one())

        yield start


def test_an_application_whose_posts_go_to_another_node_is_limited_by_the_first(
    nodes: Callable[..., Nodes], http_sdk: OpenSdk
):
    both = nodes({**limits("client_command", publish=(2, "1h")), "workers": 2})
    url = f"ws://{both.first.gateway}/connection/websocket"

    async def run():
        async with http_sdk(url, token=token_of("ann"), emulation=f"http://{both.second.gateway}") as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", 1)
            await ann.publish("news", 2)
            with pytest.raises(Refusal) as refused:
                await ann.publish("news", 3)
            assert refused.value.code == 111
            await ann.until("publication", count=2)

    asyncio.run(run())
    done = 'cpro_operations_total{door="gateway",op="publish",verdict="%s"}'
    assert [both.first.metric(done % verdict) for verdict in ("admitted", "refused")] == [2, 1]
    assert both.second.metric(done % "admitted") == 0


def test_a_session_of_a_node_that_is_gone_is_one_of_an_unknown_node(nodes: Callable[..., Nodes]):
    both = nodes()
    with Stream(both.first.gateway, connect_of("ann")) as ann:
        ann.opened()
        assert ann.post(presence(2), to=both.second.gateway) == 204
        assert ann.next() == {"id": 2, "presence": {"presence": {}}}
        both.first.kill_all()
        assert ann.next() is None
        assert ann.post(presence(3), to=both.second.gateway) == 404
        both.first.start()  # at the same internal address, with none of its sessions
        assert ann.post(presence(4), to=both.second.gateway) == 404
        assert ann.post(presence(5), to=both.first.gateway) == 404


def test_after_the_death_of_its_worker_a_client_comes_back(stack: StartStack, http_sdk: OpenSdk):
    started = start_alone(stack, {"workers": 2})

    async def run():
        async with http_sdk(started.gateway_url, token=token_of("ann")) as ann:
            await ann.ready()
            await ann.subscribed("news")
            for pid in started.service.workers():
                os.kill(pid, signal.SIGKILL)
            await ann.until("connected", count=2, timeout_s=30)
            await ann.until("subscribed", count=2, timeout_s=30)
            await ann.publish("news", 1)
            await ann.until("publication")
        gauge = f'cpro_gateway_connections{{transport="{http_sdk.transport}"}}'
        await eventually(lambda: started.service.metric(gauge) == 0)

    asyncio.run(run())


POSTS: list[tuple[str, Callable[[str, str], bytes], bytes]] = [
    ("plain", lambda s, n: _body(session=s, node=n, data=presence(2)), b"application/json"),
    ("two commands", lambda s, n: _body(session=s, node=n, data=presence(2) + "\n" + presence(3)), b""),
    ("any case", lambda s, n: _body(Session=s, NODE=n, DatA=presence(2)), b"text/plain"),
    ("long s", lambda s, n: _body(node=n, data=presence(2), session=s).replace(b'"ses', b'"\\u017fes'), b""),
    ("trailing", lambda s, n: _body(session=s, node=n, data=presence(2)) + b" x", b""),
    ("object", lambda s, n: b'{"session":"%b","node":"%b","data":{"id":2}}' % (s.encode(), n.encode()), b""),
    ("number", lambda s, n: b'{"session":"%b","node":"%b","data":5}' % (s.encode(), n.encode()), b""),
    ("null", lambda s, n: _body(session=s, node=n, data=None), b""),
    ("empty", lambda s, n: _body(session=s, node=n, data=""), b""),
    ("no data", lambda s, n: _body(session=s, node=n), b""),
    ("repeated", lambda s, n: b'{"session":"x",' + _body(session=s, node=n, data=presence(2))[1:], b""),
    ("repeated in another case", lambda s, n: _body(session=s, SESSION="x", node=n, data=presence(2)), b""),
    ("null after", lambda s, n: _body(session=s, Session=None, node=n, data=presence(2)), b""),
    ("no command", lambda s, n: _body(session=s, node=n, data="x"), b""),
    ("a command, then none", lambda s, n: _body(session=s, node=n, data=presence(2) + "\nx"), b""),
    ("any case inside", lambda s, n: _body(session=s, node=n, data='{"ID":2,"Presence":{"CHANNEL":"news"}}'), b""),
    ("raw line break", lambda s, n: _body(session=s, node=n, data="a").replace(b'"a"', b'"a\nb"'), b""),
    ("not UTF-8", lambda s, n: _body(session=s, node=n, data=presence(2, "~")).replace(b"~", b"\xff"), b""),
    ("half a character", lambda s, n: _body(session=s, node=n, data=presence(2, "~")).replace(b"~", b"\\ud800"), b""),
    ("too large", lambda s, n: _body(session=s, node=n, data=presence(2) + "\n" * 70_000), b""),
    ("not JSON", lambda s, n: b"x", b""),
    ("nothing", lambda s, n: b"", b""),
    ("array", lambda s, n: b"[]", b""),
    ("empty object", lambda s, n: b"{}", b""),
    ("unknown session", lambda s, n: _body(session="00000000", node=n, data=presence(2)), b""),
    ("unknown node", lambda s, n: _body(session=s, node="00000000", data=presence(2)), b""),
    ("no node", lambda s, n: _body(session=s, data=presence(2)), b""),
    ("commands in protobuf", lambda s, n: build_emulation(n.encode(), s.encode(), presence(2).encode()), OCTETS),
    (
        "a text in protobuf",
        lambda s, n: build_emulation(n.encode(), s.encode(), json.dumps(presence(2)).encode()),
        OCTETS,
    ),
    ("broken protobuf", lambda s, n: b"\x0a\x05n", OCTETS),
]
"""What is replaced is never in a sealed node, which is base64."""


def _body(**members: object) -> bytes:
    return json.dumps(members).encode()


def test_whatever_is_posted_the_answer_is_centrifugos(stack: StartStack):
    started = start_alone(stack, {})
    direct = started.centrifugo.base.removeprefix("http://")
    for name, build, content_type in POSTS:
        ours = outcome_of(started.service.gateway, build, content_type)
        for _ in range(5):  # a session that a post ends may answer the next one or not, as its end and that race
            theirs = outcome_of(direct, build, content_type)
            if theirs == ours:
                break
        assert ours == theirs, name


def outcome_of(address: str, build: Callable[[str, str], bytes], content_type: bytes) -> tuple[int, list]:
    """The status, and all that the stream says of it; what comes after a last command of ours is that one's reply."""
    with Stream(address, connect_of("ann")) as ann:
        ann.opened()
        status = emulate(address, build(ann.session, ann.node), content_type or b"application/json")
        ann.post('{"id":1000,"rpc":{"method":"nobody\'s"}}', "x")  # and the end
        return status, [without_codes(message) for message in ann.rest()]


def without_codes(message: dict) -> object:
    """Errors by their code."""
    return message if "error" not in message else (message["id"], message["error"]["code"])


class Trap(BaseHTTPRequestHandler):
    """An address that nobody should be able to have the gateway speak to."""

    asked: list[str]

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def test_nobody_has_a_node_sealed_by_others_or_speaks_to_centrifugo_past_the_gateway(stack: StartStack):
    from cpro.doors.gateway.emulation import Owner, seal_owner
    from cpro.doors.seal import Seal

    started = start_alone(stack, {"secret": SECRET})
    direct = started.centrifugo.base.removeprefix("http://")
    asked: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), type("Caught", (Trap,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        trap = f"127.0.0.1:{server.server_port}"
        forged = seal_owner(Seal(b"a guess"), Owner("service", "0", trap, "n"))
        with Stream(direct, connect_of("bob")) as bob:  # who has connected past the gateway
            bob.opened()
            for node in (forged, forged[:-1], trap, f"http://{trap}", bob.node, "0" * 22 + bob.node):
                body = _body(session=bob.session, node=node, data=presence(2))
                assert emulate(started.service.gateway, body) == 404
            assert bob.post(presence(3)) == 204
            assert bob.next() == {"id": 3, "presence": {"presence": {}}}, "the first that reached Centrifugo"
        assert not asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_session_is_needed_even_with_a_good_node(stack: StartStack):
    started = start_alone(stack, {})
    with (
        Stream(started.service.gateway, connect_of("ann")) as ann,
        Stream(started.service.gateway, connect_of("eve")) as eve,
    ):
        ann.opened()
        eve.opened()
        guess = ann.session[:-1] + ("0" if ann.session[-1] != "0" else "1")
        assert emulate(started.service.gateway, _body(session=guess, node=eve.node, data=presence(2))) == 204
        assert ann.post(presence(3)) == 204
        assert ann.next()["id"] == 3
        assert eve.post(presence(4)) == 204
        assert eve.next()["id"] == 4


def test_a_burst_of_posts_keeps_its_order_and_loses_nothing(stack: StartStack):
    started = start_alone(stack, {})
    count = 60
    with Stream(started.service.gateway, connect_of("ann")) as ann:
        ann.opened()
        for number in range(2, 2 + count):
            data = json.dumps({"id": number, "publish": {"channel": "news", "data": "x" * 30_000}})
            assert ann.post(data) == 204
        assert [ann.next()["id"] for _ in range(count)] == list(range(2, 2 + count))


def test_what_only_asks_whether_it_may_goes_to_centrifugo(stack: StartStack):
    from tests.support.wire import Wire

    started = start_alone(stack, {})
    direct = started.centrifugo.base.removeprefix("http://")
    asks = b"Host: x\r\nOrigin: http://a.b\r\nAccess-Control-Request-Headers: content-type\r\n"
    for method, path in [
        (b"OPTIONS", b"/emulation"),
        (b"OPTIONS", b"/connection/http_stream"),
        (b"OPTIONS", b"/connection/sse"),
        (b"GET", b"/connection/sse"),
        (b"GET", b"/connection/http_stream"),
        (b"PUT", b"/emulation"),
    ]:
        answers = []
        for address in (direct, started.service.gateway):
            with Wire(address) as wire:
                status, headers, body = wire.send(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, path, asks)).answer()
            for hop in (b"date", b"connection"):
                headers.pop(hop, None)
            answers.append((status, headers, body))
        assert answers[0] == answers[1], (method, path)
        assert answers[1][1][b"access-control-allow-origin"] == b"http://a.b"


@pytest.mark.parametrize("kind", ["http_stream", "websocket"])
def test_a_client_that_never_reads_is_given_up_and_leaves_nothing(stack: StartStack, kind: str):
    started = start_alone(stack, {})
    gauge = f'cpro_gateway_connections{{transport="{kind}"}}'
    data = "x" * 60_000

    def publish_until_gone() -> bool:
        for _ in range(20):
            started.centrifugo.api("publish", {"channel": "news", "data": data})
        return started.service.metric(gauge) == 0

    async def run():
        await eventually(publish_until_gone, timeout_s=60)

    with subscribed(kind, started.service.gateway):
        assert started.service.metric(gauge) == 1
        asyncio.run(run())
    stats = started.centrifugo.api("presence_stats", {"channel": "news"})
    assert stats["num_clients"] == 0


def subscribed(kind: str, address: str) -> Stream | RawWebSocket:
    """A client that has subscribed, and from now on reads nothing."""
    subscribe = '{"id":2,"subscribe":{"channel":"news"}}'
    if kind == "websocket":
        socket = RawWebSocket(f"ws://{address}/connection/websocket")
        socket.send_text(f"{connect_of('ann')}\n{subscribe}".encode())
        socket.next_event()
        return socket
    stream = Stream(address, connect_of("ann")).opened()
    assert stream.post(subscribe) == 204
    stream.next()
    return stream
