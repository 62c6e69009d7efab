"""Unidirectional transports: connects are limited and on record, and all else passes."""

import json
import threading
from urllib.parse import quote

import pytest

from cpro._fast.wsframe import CLOSE
from tests.e2e.centrifugo.conftest import GATEWAY, Stack, StartStack, start_alone, without_proxies
from tests.support.analytics_service import analytics, ask
from tests.support.processes import eventually
from tests.support.service import limits
from tests.support.sockets import KEY, token_of
from tests.support.streams import Stream
from tests.support.websocket import RawWebSocket

pytestmark = pytest.mark.centrifugo

KINDS = ("uni_sse", "uni_http_stream", "uni_websocket", "uni_websocket?")
"""The last asks in its URL."""
TRANSPORTS = {name: {"enabled": True} for name in ("uni_sse", "uni_http_stream", "uni_websocket")}


class Pushed:
    """A unidirectional client: what it is pushed, one by one."""

    def __init__(self, address: str, kind: str, request: dict | str):
        said = request if isinstance(request, str) else json.dumps(request)
        self._socket: RawWebSocket | None = None
        if not kind.startswith("uni_websocket"):
            self._stream = Stream(address, said, kind)
            return
        url = f"ws://{address}/connection/uni_websocket"
        self._socket = RawWebSocket(f"{url}?cf_connect={quote(said)}" if kind.endswith("?") else url)
        if not kind.endswith("?"):
            self._socket.send_text(said.encode())

    def __enter__(self) -> "Pushed":
        return self

    def __exit__(self, *exc: object) -> None:
        (self._socket or self._stream).__exit__()

    def next(self) -> dict | None:
        """The next push; None at the end."""
        if self._socket is None:
            return self._stream.next()
        event = self._socket.next_event()
        while event is not None and event.payload == b"{}":
            event = self._socket.next_event()
        return None if event is None or event.opcode == CLOSE else json.loads(event.payload)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def open_transports(config: dict) -> None:
    without_proxies(config)
    config.update(TRANSPORTS)


def start_open(stack: StartStack, settings: dict, **gateway: object) -> Stack:
    return start_alone(stack, settings, change=open_transports, **gateway)


def request_of(user: str, key: str = KEY, **more: object) -> dict:
    return {"token": token_of(user, key, channels=["news"]), "name": "uni", **more}


def test_pushes_pass_and_a_connect_too_many_is_a_disconnect(stack: StartStack, kind: str):
    started = start_open(stack, limits(connect=(1, "1h")))
    with Pushed(started.service.gateway, kind, request_of("ann")) as ann:
        assert "news" in ann.next()["connect"]["subs"]
        started.centrifugo.api("publish", {"channel": "news", "data": {"n": 1}})
        assert ann.next()["pub"]["data"] == {"n": 1}
        with Pushed(started.service.gateway, kind, request_of("ann")) as again:
            assert again.next() == {"disconnect": {"code": 3013, "reason": "too many requests"}}
            assert again.next() is None
        with Pushed(started.service.gateway, kind, request_of("bob")) as bob:
            assert bob.next()["connect"]
    assert started.operations("connect", "refused", door="gateway") == 1


@pytest.mark.parametrize("spelt", ["TOKEN", "toKEN"])
def test_however_its_token_is_spelt_a_connect_is_charged(stack: StartStack, kind: str, spelt: str):
    started = start_open(stack, limits(connect=(1, "1h")))
    with Pushed(started.service.gateway, kind, request_of("ann")) as ann:
        assert ann.next()["connect"]
        other = request_of("ann")
        other[spelt] = other.pop("token")
        with Pushed(started.service.gateway, kind, other) as again:
            assert again.next() == {"disconnect": {"code": 3013, "reason": "too many requests"}}


def test_centrifugos_own_refusal_passes_as_it_is(stack: StartStack, kind: str):
    started = start_open(stack, {})
    forged = request_of("ann", "a key of the attacker's, who has no other")
    with Pushed(started.service.gateway, kind, forged) as mallory:
        assert mallory.next() == {"disconnect": {"code": 3500, "reason": "invalid token"}}
        assert mallory.next() is None


def test_a_stop_says_so(stack: StartStack, kind: str):
    started = start_open(stack, {})
    with Pushed(started.service.gateway, kind, request_of("ann")) as ann:
        assert ann.next()["connect"]
        stopping = threading.Thread(target=started.service.stop)
        stopping.start()
        assert ann.next() == {"disconnect": {"code": 3001, "reason": "shutdown"}}
        assert ann.next() is None
        stopping.join()


def test_who_is_refused_before_centrifugo_is_asked(stack: StartStack, kind: str):
    started = start_open(stack, limits(connect=(1, "1h")), token={"hmac_secret_key": KEY})
    with Pushed(started.service.gateway, kind, request_of("ann")) as ann:
        assert ann.next()["connect"]
        if kind == "uni_websocket?":  # there is no WebSocket yet that could say so
            with pytest.raises(AssertionError, match="503"):
                Pushed(started.service.gateway, kind, request_of("ann"))
            return
        with Pushed(started.service.gateway, kind, request_of("ann")) as again:
            assert again.next() == {"disconnect": {"code": 3013, "reason": "too many requests"}}


def test_connections_and_their_ends_are_on_record(stack: StartStack, kind: str):
    started = start_open(stack, analytics("operations", "connections", "subscriptions"))
    name = kind.removesuffix("?")
    with Pushed(started.service.gateway, kind, request_of("ann")) as ann:
        assert ann.next()["connect"]
        assert started.service.metric(f'cpro_gateway_connections{{transport="{name}"}}') == 1
        started.centrifugo.api("disconnect", {"user": "ann"})
        assert ann.next()["disconnect"]["code"] == 3503
    stored = 'cpro_sink_rows_total{sink="clickhouse",table="operations"}'
    assert eventually(lambda: started.service.metric(stored) == 3)
    rows = ask(started.service, "SELECT op, user, disconnect FROM centrifugo.operations ORDER BY op")
    assert [(row["op"], row["user"], row["disconnect"]) for row in rows] == [
        ("connect", "ann", 0),
        ("connecting", "ann", 0),
        ("disconnect", "ann", 3503),
    ]
    (connection,) = ask(started.service, "SELECT user, name, transport, protocol FROM centrifugo.connections")
    assert connection == {"user": "ann", "name": "uni", "transport": name, "protocol": "json"}
    assert ask(started.service, "SELECT channel FROM centrifugo.subscriptions") == [{"channel": "news"}]


def test_a_backends_answer_names_the_user_and_nothing_of_that_is_left(stack: StartStack, kind: str):
    def answer(received: object) -> object:
        return {"result": {"user": "ann", "data": {"welcome": 1}, "channels": ["news"]}}

    started = stack({**limits(connect=(1, "1h")), **GATEWAY}, answer=answer, centrifugo=TRANSPORTS)
    with Pushed(started.service.gateway, kind, {"data": {"n": 1}}) as ann:
        assert ann.next()["connect"]["data"] == {"welcome": 1}
        with Pushed(started.service.gateway, kind, {}) as again:
            assert again.next() == {"disconnect": {"code": 3013, "reason": "too many requests"}}
    assert started.received("connect")[0].json["data"] == {"n": 1}
    assert started.received("connect")[0].json["transport"] == kind.removesuffix("?")


def test_a_request_that_asks_nothing_clear_is_refused(stack: StartStack):
    started = start_open(stack, {})
    for said in ("", "x", "[]", '{"token":"a","token":"b"}'):
        with Stream(started.service.gateway, said, "uni_http_stream") as stream:
            assert stream.status == 400
    with RawWebSocket(f"ws://{started.service.gateway}/connection/uni_websocket") as socket:
        socket.send_text(b'{"token":"a","token":"b"}')
        assert socket.next_close() == (3501, b"bad request")


def test_nobody_connects_uncharged_by_asking_for_nothing(stack: StartStack, kind: str):
    settings = limits("user_command", connect=(1, "1h"))
    settings["client"]["rate_limit"]["anonymous"] = "ip"

    def insecure(config: dict) -> None:
        open_transports(config)
        config["client"] = {"insecure": True}

    started = start_alone(stack, settings, change=insecure)
    with Pushed(started.service.gateway, kind, "{}") as first:
        assert first.next()["connect"]
        for said in ("{}", "null", " null", '{"data":null}', '{} {"token":"x"}'):
            with Pushed(started.service.gateway, kind, said) as again:
                assert again.next() == {"disconnect": {"code": 3013, "reason": "too many requests"}}, said
