"""A session between a scripted client and a scripted Centrifugo: who passes, in which order, and what is on record."""

import json

import pytest

from cpro._fast.replies import parse_replies
from cpro.doors.gateway.session import WAITING_LIMIT_BYTES, About, Session, State
from cpro.doors.gateway.tokens import Claim
from cpro.operation import Verdict
from tests.support.gateway import ScriptedRules


class Scene:
    """One session and its wire."""

    def __init__(self, *, refuse: tuple[str, ...] = (), ask: tuple[str, ...] = (), claim: Claim | None = None):
        self.rules = ScriptedRules(refuse=set(refuse), ask=set(ask), known=claim)
        self.now_ns = 0
        self.forwarded: list[dict] = []
        self.answered: list[dict] = []
        self.refusal: dict | None = None
        self.is_through = self.is_held = False
        self.disconnected: tuple | None = None
        self.session = Session(
            self,
            lambda: self.rules,
            lambda: self.now_ns,
            connection="g",
            about=About("websocket", {}),
            protobuf=False,
            address="192.0.2.1",
        )

    # the wire

    def forward(self, payload: bytes) -> None:
        self.forwarded += [json.loads(line) for line in payload.split(b"\n")]

    def answer(self, reply: bytes) -> None:
        self.answered.append(json.loads(reply))

    def on_let_in(self, said, data) -> None:
        pass

    def let_through(self) -> None:
        self.is_through = True

    def refuse_connect(self, reply: bytes) -> None:
        self.refusal = json.loads(reply)

    def disconnect(self, code: int, reason: str) -> None:
        self.disconnected = code, reason
        self.session.on_closed(code, reason)

    def hold(self) -> None:
        self.is_held = True

    def go_on(self) -> None:
        self.is_held = False

    # the two peers

    def client(self, *commands: dict) -> None:
        self.session.on_message(b"\n".join(json.dumps(one).encode() for one in commands))

    def centrifugo(self, *replies: dict) -> None:
        for reply in replies:
            (said,) = parse_replies(json.dumps(reply, separators=(",", ":")).encode(), False)
            self.session.on_said(said)

    def kinds(self) -> list[str]:
        return [next(key for key in one if key != "id") for one in self.forwarded]


CONNECT = {"id": 1, "connect": {"token": "t"}}
CONNECTED = {"id": 1, "connect": {"client": "c", "version": "6.9.1 OSS"}}
ANN = Claim("ann", is_verified=False)
TOO_MANY = {"code": 111, "message": "too many requests", "temporary": True}


def opened(**limits: tuple[str, ...]) -> Scene:
    scene = Scene(claim=ANN, **limits)
    scene.client(CONNECT)
    scene.centrifugo(CONNECTED)
    assert scene.session.state is State.OPEN
    scene.forwarded.clear()
    scene.rules.charged.clear()
    scene.rules.rows.clear()
    return scene


def publish(number: int) -> dict:
    return {"id": number, "publish": {"channel": "news", "data": number}}


def test_what_follows_a_connect_waits_for_its_reply_and_is_charged_to_its_user():
    scene = Scene(claim=ANN)
    scene.client(CONNECT, publish(2), {"id": 3, "subscribe": {"channel": "news"}})
    scene.client(publish(4))
    assert scene.kinds() == ["connect"]
    scene.centrifugo(CONNECTED)
    assert scene.is_through
    assert [one["id"] for one in scene.forwarded] == [1, 2, 3, 4]
    assert scene.rules.charged == [("connect", "ann"), ("publish", "ann"), ("subscribe", "ann"), ("publish", "ann")]


def test_nobody_is_charged_for_a_connect_that_centrifugo_refuses():
    scene = Scene(claim=ANN)
    scene.client(CONNECT)
    scene.centrifugo({"id": 1, "error": {"code": 109, "message": "token expired"}})
    assert scene.rules.charged == []
    assert scene.rules.rows == [("connect", "", 109, 0)]
    assert scene.is_through
    scene.client(publish(2))
    assert scene.kinds() == ["connect", "publish"], "Centrifugo ends it by itself"


def test_a_refused_connect_takes_the_place_of_the_reply_and_nothing_follows():
    scene = Scene(claim=ANN, refuse=("connect",))
    scene.client(CONNECT, publish(2))
    scene.centrifugo(CONNECTED)
    assert scene.refusal == {"id": 1, "error": TOO_MANY}
    assert not scene.is_through
    scene.client(publish(3))
    assert scene.kinds() == ["connect"]


def test_a_verified_user_over_its_limit_is_refused_before_centrifugo_is_asked():
    scene = Scene(claim=Claim("ann", is_verified=True), refuse=("connect",))
    scene.client(CONNECT)
    assert scene.rules.charged == [("connect", "ann")]
    assert scene.refusal == {"id": 1, "error": TOO_MANY}
    assert scene.forwarded == []


@pytest.mark.parametrize("code", [3500, 3000])
def test_a_connect_that_ends_without_a_reply_is_on_record(code: int):
    scene = Scene(claim=ANN)
    scene.client(CONNECT)
    scene.session.on_closed(code, "")
    assert scene.rules.rows == [("connect", "", 0, code)]
    assert scene.rules.charged == []


def test_a_session_that_closes_while_limits_ask_does_not_open_afterwards():
    scene = Scene(claim=ANN, ask=("connect",))
    scene.client(CONNECT)
    scene.centrifugo(CONNECTED)
    scene.session.on_closed(3000, "")
    (decide,) = scene.rules.deciders
    decide(Verdict.ADMITTED)
    assert scene.rules.events == [("close", 3000)]
    assert scene.session.state is State.REFUSED
    assert not scene.is_through


def test_refused_commands_are_answered_and_the_others_of_the_message_go_on():
    scene = opened(refuse=("publish",))
    scene.client(publish(2), {"id": 3, "history": {"channel": "news"}}, publish(4))
    assert scene.kinds() == ["history"]
    assert scene.answered == [{"id": 2, "error": TOO_MANY}, {"id": 4, "error": TOO_MANY}]
    scene.centrifugo({"id": 3, "history": {"publications": [], "offset": 0, "epoch": "x"}})
    assert scene.rules.rows == [("publish", "ann", 111, 0), ("publish", "ann", 111, 0), ("history", "ann", 0, 0)]


@pytest.mark.parametrize("verdict", [Verdict.ADMITTED, Verdict.REFUSED])
def test_what_follows_a_command_that_limits_ask_about_keeps_its_place(verdict: Verdict):
    scene = opened(ask=("publish",))
    scene.client(publish(2), {"id": 3, "history": {"channel": "news"}})
    scene.client({"id": 4, "presence": {"channel": "news"}})
    assert scene.forwarded == []
    scene.rules.deciders.pop()(verdict)
    ids = [one["id"] for one in scene.forwarded]
    assert ids == ([2, 3, 4] if verdict is Verdict.ADMITTED else [3, 4])
    assert bool(scene.answered) is (verdict is Verdict.REFUSED)


def test_a_client_that_goes_on_sending_is_held_until_what_waits_is_gone():
    scene = Scene(claim=ANN)
    scene.client(CONNECT)
    filler = {"id": 2, "publish": {"channel": "news", "data": "x" * WAITING_LIMIT_BYTES}}
    scene.client(filler)
    assert scene.is_held
    scene.centrifugo(CONNECTED)
    assert not scene.is_held


def test_what_is_under_way_at_the_end_is_on_record_with_its_code():
    scene = opened()
    scene.client(publish(2), publish(3))
    scene.centrifugo({"id": 2, "publish": {}})
    scene.session.on_closed(3008, "slow")
    assert scene.rules.rows == [("publish", "ann", 0, 0), ("publish", "ann", 0, 3008)]


def test_an_untrack_counts_as_a_refresh_where_the_channel_is_no_shared_poll():
    scene = opened(refuse=("sub_refresh",))
    untrack = {"id": 2, "sub_refresh": {"channel": "news", "type": 2}}
    scene.client(untrack)
    assert scene.rules.charged == [("sub_refresh", "ann")]
    assert scene.forwarded == []
    scene.client({"id": 3, "subscribe": {"channel": "news", "type": 4}})
    scene.centrifugo({"id": 3, "subscribe": {"type": 4}})
    scene.client(untrack)
    assert scene.rules.charged[-1] == ("untrack", "ann")
    assert scene.kinds() == ["subscribe", "sub_refresh"]


def test_pages_of_a_map_are_charged_once_and_a_cursor_is_good_once():
    scene = opened()
    scene.client({"id": 2, "subscribe": {"channel": "m", "type": 1, "phase": 2}})
    scene.centrifugo({"id": 2, "subscribe": {"type": 1, "phase": 2, "cursor": "p2"}})
    page = {"id": 3, "subscribe": {"channel": "m", "type": 1, "phase": 2, "cursor": "p2"}}
    scene.client(page)
    assert scene.rules.charged == [("subscribe", "ann")]
    scene.client({**page, "id": 4})
    assert scene.rules.charged == [("subscribe", "ann")] * 2
    assert scene.rules.events == [("open", "ann")], "it is subscribed when the last page has come"


def test_a_plugins_method_passes_uncharged_since_the_proxy_door_charges_it():
    scene = opened()
    scene.client({"id": 2, "rpc": {"method": "plugin:do", "data": {}}})
    assert scene.rules.charged == []
    assert scene.kinds() == ["rpc"]


def test_too_many_errors_end_the_session_whoever_made_them():
    scene = opened(refuse=("publish",))
    scene.rules.errors_left = 2
    scene.client({"id": 2, "history": {"channel": "news"}})
    scene.centrifugo({"id": 2, "error": {"code": 108, "message": "not available"}})
    scene.client(publish(3))
    assert scene.disconnected is None
    scene.client({"id": 4, "history": {"channel": "news"}})
    scene.centrifugo({"id": 4, "error": {"code": 100, "message": "internal server error", "temporary": True}})
    assert scene.disconnected is None, "that is nobody's fault but the server's"
    scene.client(publish(5), {"id": 6, "history": {"channel": "news"}})
    assert scene.disconnected == (3509, "too many errors")
    assert [one["id"] for one in scene.forwarded] == [2, 4]


def test_subscriptions_are_known_from_their_success_to_their_end():
    scene = opened()
    scene.client({"id": 2, "subscribe": {"channel": "a"}}, {"id": 3, "subscribe": {"channel": "b"}})
    scene.centrifugo({"id": 2, "subscribe": {}}, {"id": 3, "error": {"code": 103, "message": "permission denied"}})
    scene.client({"id": 4, "unsubscribe": {"channel": "a"}})
    scene.centrifugo({"id": 4, "unsubscribe": {}})
    scene.centrifugo({"push": {"channel": "c", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}})
    assert scene.rules.events == [("open", "ann"), ("subscribed", "a"), ("unsubscribed", "a"), ("unsubscribed", "c")]


def test_latency_is_how_long_the_last_pong_took():
    scene = opened()
    assert scene.session.latency_ns == 0
    for pinged_ns, ponged_ns in ((10, 35), (100, 101)):
        scene.now_ns = pinged_ns
        scene.centrifugo({})
        scene.now_ns = ponged_ns
        scene.client({})
        assert scene.session.latency_ns == ponged_ns - pinged_ns
    scene.now_ns = 1000
    scene.client({})
    assert scene.session.latency_ns == 1, "there was no ping"
    assert scene.forwarded == [{}, {}, {}]


def test_a_pong_that_had_to_wait_here_says_nothing_of_the_client():
    scene = opened(ask=("publish",))
    scene.now_ns = 10
    scene.centrifugo({})
    scene.client(publish(2))
    scene.client({})
    scene.now_ns = 10_000
    scene.rules.deciders.pop()(Verdict.ADMITTED)
    assert scene.forwarded[1:] == [{}]
    assert scene.session.latency_ns == 0
