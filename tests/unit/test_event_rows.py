"""Which rows an event leaves, and what they say: through the real door, with a recording that keeps calls."""

import base64
import json
from types import SimpleNamespace

import msgspec
import pytest

from cpro._fast.http1 import RequestParser
from cpro.config.model import EVENTS, Proxy
from cpro.doors import events
from cpro.doors.answers import channels_of, published_bytes, read_answer, read_connect_answer, user_of
from cpro.doors.claims import Added
from cpro.doors.proxy import ProxyDoor
from cpro.doors.rows import EventRows
from cpro.operation import EMPTY_RESULT, Reply, Verdict

NOTHING = {"operation": None, "call": None, "connection": None, "subscription": None, "publication": None}


class World:
    """A door that forwards to `answers`, and the rows it had recorded."""

    def __init__(self, *tables: str, headers: tuple[str, ...] = (), claims: tuple = (), **answers: object):
        self.operations: list[tuple] = []
        self.connections: list[dict] = []
        self.subscriptions: list[tuple] = []
        self.publications: list[tuple] = []
        self.verdict = Verdict.ADMITTED
        functions = {
            "operations": {"operation": self._operation("channel"), "call": self._operation("method")},
            "connections": {"connection": self._connection},
            "subscriptions": {"subscription": self._subscription},
            "publications": {"publication": self._publication},
        }
        recording = {**NOTHING, "headers": headers}
        for table in tables:
            recording |= functions[table]
        rows = EventRows(SimpleNamespace(**recording))
        self.rows = rows
        self.counted: list[tuple[str, str]] = []
        self.door = ProxyDoor(lambda operation, now_ns, own_only=False: self.verdict, self._counter)
        forwards = {event: self._forward(event, answer) for event, answer in answers.items()}
        self.door.configure(
            Proxy(),
            forwards,
            user_of,
            by_address=False,
            added=Added(claims=claims),
            interests=[rows.told],
            reading_of=rows.reading_of,
        )

    def send(self, event: str, headers: dict[str, str] | None = None, **fields: object) -> Reply:
        body = json.dumps({"client": "c1", **fields}).encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        parser = RequestParser(1 << 16, 1 << 20)
        parser.feed(f"POST /centrifugo/{event} HTTP/1.1\r\nHost: c\r\n{lines}".encode())
        parser.feed(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return self.door(parser.next_request(), SimpleNamespace(answer=None), 1)

    def _forward(self, event: str, answer: object):
        read = read_connect_answer if event == "connect" else read_answer
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return lambda operation, request, respond: read(body)

    def _counter(self, kind: str):
        return lambda verdict, duration_ns: self.counted.append((kind, verdict.name))

    def _operation(self, namespace_of: str):
        def record(operation, verdict, reply, duration_ns):
            assert duration_ns >= 0
            self.operations.append(
                (operation.kind, operation.user, namespace_of, verdict.name, reply.error, reply.disconnect)
            )

        return record

    def _connection(
        self, client: str, user: str, about: tuple, headers: dict, at_ns: int, latency_ns: int, made_s: int
    ) -> None:
        assert at_ns > 0
        assert (latency_ns, made_s) == (0, 0), "the proxy door knows neither"
        self.connections.append((client, user, about, headers))

    def _subscription(self, *values: object) -> None:
        assert values[-1] > 0
        self.subscriptions.append(values[:-1])

    def _publication(self, *values: object) -> None:
        assert values[-1] > 0
        self.publications.append(values[:-1])


def test_every_event_is_an_operation_with_the_codes_of_its_answer():
    world = World("operations", publish={"error": {"code": 103, "message": "no"}}, rpc={"disconnect": {"code": 4001}})
    for event in EVENTS:
        world.send(event, user="42")
    assert world.operations == [
        ("connect", "42", "channel", "ADMITTED", 0, 0),
        ("refresh", "42", "channel", "FAILED", 0, 0),
        ("subscribe", "42", "channel", "ADMITTED", 103, 0),
        ("publish", "42", "channel", "ADMITTED", 103, 0),
        ("sub_refresh", "42", "channel", "FAILED", 0, 0),
        ("rpc", "42", "method", "ADMITTED", 0, 4001),
        ("map_publish", "42", "channel", "ADMITTED", 103, 0),
        ("map_remove", "42", "channel", "ADMITTED", 103, 0),
    ]


def test_a_refusal_is_an_operation_and_nothing_else():
    world = World("operations", "connections", "subscriptions", "publications", connect={"result": {"user": "7"}})
    world.verdict = Verdict.REFUSED
    for event in ("connect", "subscribe", "publish", "refresh"):
        world.send(event, user="42", channel="c")
    assert world.operations == [
        ("connect", "7", "channel", "REFUSED", 111, 0),
        ("subscribe", "42", "channel", "REFUSED", 111, 0),
        ("publish", "42", "channel", "REFUSED", 111, 0),
        ("refresh", "42", "channel", "REFUSED", 0, 0),
    ]
    assert world.connections + world.subscriptions + world.publications == []


def test_a_dry_run_leaves_the_rows_of_what_happened():
    world = World("operations", "publications", publish={"result": {}})
    world.verdict = Verdict.DRY_RUN
    world.send("publish", user="42", channel="c", data=[1, 2])
    assert world.operations == [("publish", "42", "channel", "DRY_RUN", 0, 0)]
    assert world.counted == [("publish", "DRY_RUN")]
    assert world.publications == [("c", "client", 6, "c1", "42")]


def test_what_is_no_event_is_nobodys_operation():
    world = World("operations", "connections", "publications")
    world.send("publish", client=5)
    world.send("connect", client=None)
    assert world.operations == []


def claim(event: str, widen, answer: Reply = EMPTY_RESULT) -> SimpleNamespace:
    """A plugin's operation `vip` that takes a whole event."""
    return SimpleNamespace(
        name="vip",
        event=event,
        methods=frozenset(),
        namespaces=frozenset(),
        charge=lambda operation, now_ns: Verdict.ADMITTED,
        widen=widen,
        handler=lambda passed_on, fault: lambda operation, request, respond: answer,
    )


def test_what_a_plugin_takes_has_the_plugins_name_and_the_events_rows():
    def widen(operation, request):
        return msgspec.structs.replace(operation, kind="vip")

    world = World("operations", "publications", claims=[claim("publish", widen)])
    world.send("publish", user="42", channel="c", data="abc")
    assert world.operations == [("vip", "42", "channel", "ADMITTED", 0, 0)]
    assert world.publications == [("c", "client", 5, "c1", "42")]


def test_an_operation_that_cant_be_recorded_is_answered_all_the_same(caplog: pytest.LogCaptureFixture):
    def widen(operation, request):
        return msgspec.structs.replace(operation, kind="vip")

    world = World("operations", claims=[claim("publish", widen)])
    world.operations = None
    assert world.send("publish", user="42", channel="c") is EMPTY_RESULT
    assert [record.getMessage() for record in caplog.records] == ["operation can't be told of"]


def test_what_a_plugin_cant_read_is_an_operation_of_a_known_user():
    def widen(operation, request):
        raise msgspec.DecodeError("b64data isn't base64")

    world = World("operations", "publications", claims=[claim("publish", widen), claim("refresh", widen)])
    assert world.send("publish", user="42", channel="c", data="abc").error == 107
    assert world.send("refresh", user="42").status == 502
    assert world.operations == [
        ("vip", "42", "channel", "INVALID", 107, 0),
        ("vip", "42", "channel", "INVALID", 0, 0),
    ]
    assert world.publications == []


def test_a_connect_that_establishes_somebody_is_a_connection():
    world = World("connections", headers=("User-Agent", "Origin"), connect={"result": {"user": "42"}})
    world.send(
        "connect",
        {"user-agent": "js/1", "Cookie": "hush", "Authorization": "hush"},
        transport="websocket",
        protocol="json",
        name="js",
        version="5.3",
    )
    assert world.connections == [("c1", "42", ("js", "5.3", "websocket", "json"), {"User-Agent": ["js/1"]})]


def test_all_values_of_a_header_are_kept():
    world = World("connections", headers=("X-Tag",), connect={"result": {}})
    body = b'{"client":"c1"}'
    parser = RequestParser(1 << 16, 1 << 20)
    parser.feed(b"POST /centrifugo/connect HTTP/1.1\r\nHost: c\r\nX-Tag: a\r\nx-tag: \xc3\xa9\xff\r\n")
    parser.feed(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    world.door(parser.next_request(), SimpleNamespace(answer=None), 1)
    assert world.connections[0][3] == {"X-Tag": ["a", "\xe9\ufffd"]}


def test_the_secret_of_cpro_is_never_in_a_row():
    world = World("connections", headers=("x-cpro-secret", "X-Cpro-Secret", "Origin"), connect={"result": {}})
    world.send("connect", {"X-Cpro-Secret": "hush", "Origin": "o"})
    assert world.connections[0][3] == {"Origin": ["o"]}


@pytest.mark.parametrize(
    ("answer", "is_one"),
    [
        ({"result": {"user": "42"}}, True),
        ({"result": {}}, True),
        (b'{"RESULT":{"uSer":"42"}}', True),
        ({}, False),
        ({"result": None}, False),
        ({"error": {"code": 4000, "message": "no"}}, False),
        ({"disconnect": {"code": 4501, "reason": "no"}, "result": {"user": "42"}}, False),
    ],
)
def test_only_an_answer_with_a_result_makes_a_connection(answer, is_one: bool):
    world = World("connections", "subscriptions", connect=answer)
    world.send("connect")
    assert len(world.connections) == is_one
    assert world.subscriptions == []


@pytest.mark.parametrize(
    ("answer", "channels"),
    [
        ({"result": {"user": "42", "channels": ["a", "b:c"]}}, ["a", "b:c"]),
        ({"result": {"user": "42", "subs": {"a": {}, "b": {"override": {}}}}}, ["a", "b"]),
        ({"result": {"user": "42", "channels": ["a", "b"], "subs": {"b": {}, "c": {}}}}, ["a", "b", "c"]),
        ({"result": {"user": "42", "channels": None, "subs": None}}, []),
        (b'{"result":{"user":"42","Channels":["a"],"sub\xc5\xbf":{"b":{}}}}', ["a", "b"]),
        ({"error": {"code": 4000, "message": "no"}, "result": {"channels": ["a"]}}, []),
        ({"result": {"user": "42", "channels": "a"}}, []),
    ],
)
def test_channels_of_a_connects_answer_are_subscriptions(answer, channels: list[str]):
    world = World("subscriptions", connect=answer)
    world.send("connect")
    assert world.subscriptions == [("c1", "42", channel) for channel in channels]


def test_an_allowed_subscribe_is_a_subscription():
    world = World("subscriptions", subscribe={"result": {"info": 1}})
    world.send("subscribe", user="42", channel="c")
    assert world.subscriptions == [("c1", "42", "c")]
    denied = World("subscriptions", subscribe={"error": {"code": 103, "message": "no"}})
    denied.send("subscribe", user="42", channel="c")
    assert denied.subscriptions == []
    nobody = World("subscriptions")
    assert nobody.send("subscribe", user="42", channel="c").error == 103
    assert nobody.subscriptions == []


@pytest.mark.parametrize("answer", [{"error": {"code": 103, "message": "no"}}, {"disconnect": {"code": 4501}}])
def test_a_publish_that_is_not_allowed_is_no_publication(answer: dict):
    world = World("publications", publish=answer)
    world.send("publish", user="42", channel="c", data=1)
    assert world.publications == []


@pytest.mark.parametrize("event", ["publish", "map_publish"])
@pytest.mark.parametrize(
    ("payload", "size"),
    [
        ({"data": {"a": [1, 2]}}, len('{"a": [1, 2]}')),
        ({"data": "x"}, 3),
        ({"b64data": base64.b64encode(b"x" * 10).decode()}, 10),
        ({"b64data": base64.b64encode(b"x" * 11).decode()}, 11),
        ({"b64data": base64.b64encode(b"x" * 12).decode()}, 12),
        ({}, 0),
    ],
)
def test_an_allowed_publish_is_a_publication_of_its_payloads_size(event: str, payload: dict, size: int):
    world = World("publications", publish={"result": {}}, map_publish={})
    world.send(event, user="42", channel="chat:x", **payload)
    assert world.publications == [("chat:x", "client", size, "c1", "42")]


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (b'{"result":{"data":{"a":1}}}', 7),
        (b'{"result": {"data" : [1, 2] }}', 6),
        (b'{"result":{"b64data":"AAAA"}}', 3),
        (b'{"result":{"data":"x","b64data":"AAAA"}}', 3),
        (b'{"Result":{"DATA":[1]}}', 3),
        (b'{"result":{"B64DATA":"AA=="}}', 1),
        (b'{"result":{"tags":{"data":"x"}}}', None),
        (b'{"result":{"skip_history":true}}', None),
        (b'{"result":{}}', None),
        (b'{"result":null,"data":5}', None),
        (b"{}", None),
        (b'{"result":{"data":1}} ', 1),
        (b'{"result":[1,"data"]}', None),
    ],
)
def test_a_payload_that_the_answer_replaces_counts(answer: bytes, size: int | None):
    assert published_bytes(Reply(answer)) == size
    world = World("publications", publish=answer)
    if answer != b'{"result":[1,"data"]}':
        world.send("publish", user="42", channel="c", data="12345678")
        assert world.publications == [("c", "client", 10 if size is None else size, "c1", "42")]


def test_what_a_backend_publishes_is_a_publication_of_the_api():
    world = World("publications")
    world.rows.on_publication("chat:x", 7)
    assert world.publications == [("chat:x", "api", 7, "", "")]
    assert World("operations").rows.on_publication is None


@pytest.mark.parametrize("code", [-1, 2**32, 2**70])
def test_a_code_that_centrifugo_cant_read_is_no_answer(code: int):
    body = json.dumps({"error": {"code": code, "message": "x"}}).encode()
    for read in (read_answer, read_connect_answer):
        with pytest.raises(ValueError, match="Expected `int`"):
            read(body)


def test_the_highest_code_is_one():
    assert read_answer(b'{"error":{"code":4294967295}}').error == 2**32 - 1


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"result":{"channels":[1]}}', b"[" * 100_000])
def test_what_cant_be_read_has_no_channels(body: bytes):
    assert channels_of(Reply(body)) is None
    assert published_bytes(Reply(body + b"data")) is None


@pytest.mark.parametrize(
    ("tables", "read_more"),
    [
        ((), set()),
        (("operations", "subscriptions"), set()),
        (("connections",), {"connect"}),
        (("publications",), {"publish", "map_publish"}),
    ],
)
def test_only_what_a_table_needs_is_read(tables: tuple[str, ...], read_more: set[str]):
    world = World(*tables)
    entrances = {entrance.kind: entrance for entrance in world.door._entrances.values()}
    plain = {kind for kind, one in entrances.items() if one.decode is events.LEAST.decode and not one.is_noted}
    assert set(EVENTS) - plain == read_more


def test_without_tables_a_lane_only_counts():
    off, on = World(), World("operations")
    bare = ProxyDoor(lambda *_, **__: Verdict.ADMITTED, lambda kind: lambda *_: None)
    bare.configure(Proxy(), {}, user_of, by_address=False)
    for path, entrance in bare._entrances.items():
        counts = entrance.lane.record.__code__
        assert off.door._entrances[path].lane.record.__code__ is counts
        assert on.door._entrances[path].lane.record.__code__ is not counts
