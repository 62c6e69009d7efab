"""What goes on to Centrifugo: unchanged but for the keys; who is told of publications; answers that make no sense."""

import asyncio
import json

import pytest

from cpro._fast.http1 import RequestParser
from cpro.config.model import HttpApi
from cpro.doors.api import ApiDoor
from cpro.doors.api_answers import INTERNAL_ERROR
from cpro.operation import Verdict
from cpro.run.centrifugo import connect_api
from tests.support.backend import Backend, Received
from tests.support.centrifugo import free_port

AWAY = {"error": {"code": 100, "message": "internal server error"}}


class Connection:
    """Where an answer goes that was not there at once."""

    def __init__(self) -> None:
        self.answered = asyncio.get_running_loop().create_future()

    def answer(self, reply) -> None:
        self.answered.set_result(reply)


class Door:
    """cpro's API with a method `own`, before a scripted Centrifugo."""

    def __init__(self, url: str, *, is_observed: bool = True, key: str = "c") -> None:
        self.published: list[tuple[str, int]] = []
        self.counted: list[Verdict] = []
        api = HttpApi(key="k", centrifugo=url, centrifugo_key=key)
        observe = (lambda channel, size: self.published.append((channel, size))) if is_observed else None
        self.client, pass_on = connect_api(api, lambda verdict, duration_ns: self.counted.append(verdict), observe)
        self.calls: list[bytes] = []
        self.door = ApiDoor(None, {"own": self._own, "later": self._later, "broken": self._broken})
        self.door.configure(api, pass_on)

    def _own(self, params, now_ns, answer):
        self.calls.append(bytes(params))
        return {"n": len(self.calls)}

    def _later(self, params, now_ns, answer):
        asyncio.get_running_loop().call_soon(answer, self._own(params, now_ns, answer))

    def _broken(self, params, now_ns, answer):
        return INTERNAL_ERROR

    async def ask(self, target: str, body: object, headers: str = "") -> tuple[int, bytes]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {target} HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
        parser = RequestParser(1 << 16, 1 << 20)
        parser.feed(head.encode() + data)
        connection = Connection()
        reply = self.door(parser.next_request(), connection, 0)
        if reply is None:
            reply = await asyncio.wait_for(connection.answered, 5)
        return reply.status, reply.body


def with_centrifugo(answer=lambda received: {"result": {}}, **options):
    """A test whose arguments are a door and the Centrifugo behind it."""

    def decorate(scenario):
        def test():
            async def main(url):
                door = Door(url, **options)
                await scenario(door, backend)
                await door.client.close(1.0)

            with Backend(answer) as backend:
                asyncio.run(main(backend.url.removesuffix("/centrifugo")))

        return test

    return decorate


# --- unchanged


@with_centrifugo()
async def test_a_request_goes_on_unchanged_but_for_our_key(door, backend):
    body = b'{ "channel" : "a",\n"data":{"\\u0041":1.0} }'
    headers = "X-Centrifugo-Error-Mode: transport\r\nAuthorization: apikey k\r\nAccept-Encoding: gzip\r\nX-Own: 1\r\n"
    assert await door.ask("/api/publish?a=1&api_key=k&b=2", body, headers) == (200, b'{"result": {}}')
    (received,) = backend.received
    assert (received.path, received.body) == ("/api/publish?a=1&b=2", body)
    got = {name.lower(): value for name, value in received.headers}
    assert got["x-api-key"] == "c"
    assert got["x-centrifugo-error-mode"] == "transport"
    assert got["x-own"] == "1"
    assert "authorization" not in got
    assert "accept-encoding" not in got
    assert door.counted == [Verdict.ADMITTED]


@with_centrifugo(lambda received: (404, b"404 page not found\n"))
async def test_status_and_body_come_back_as_they_are(door, backend):
    assert await door.ask("/api/nothere", {}) == (404, b"404 page not found\n")


@with_centrifugo(key="")
async def test_without_a_key_none_is_sent(door, backend):
    await door.ask("/api/info", {})
    assert "x-api-key" not in {name.lower() for name, _ in backend.received[0].headers}


@with_centrifugo(lambda received: (200, b'{"replies":[]}'))
async def test_a_batch_without_a_command_of_ours_goes_on_byte_for_byte(door, backend):
    body = b'{"commands": [ {"publish": {"channel": "a"}} ], "Parallel": true}'
    assert await door.ask("/api/batch", body) == (200, b'{"replies":[]}')
    assert backend.received[0].body == body


@pytest.mark.parametrize("end", ["", "/", "/api", "/api/"])
def test_the_url_may_end_in_api(end):
    async def main(url):
        door = Door(url + end)
        await door.ask("/api/info", {})
        await door.client.close(1.0)

    with Backend() as backend:
        asyncio.run(main(backend.url.removesuffix("/centrifugo")))
        assert [received.path for received in backend.received] == ["/api/info"]


# --- batches and lines


def batch_answer(received: Received) -> object:
    """Centrifugo: answers each command by its number in this request."""
    if received.path == "/api":
        return 200, b"\n".join(b'{"result":{"line":%d}}' % n for n, _ in enumerate(received.body.split(b"\n")))
    return {"replies": [{next(iter(one or {"?": 0})): {"n": n}} for n, one in enumerate(received.json["commands"])]}


@with_centrifugo(batch_answer)
async def test_commands_are_carried_out_in_turn_and_answered_in_order(door, backend):
    commands = [{"a": {}}, {"b": {}}, {"own": 1}, {"later": 2}, {"c": {}}, {"broken": {}}, {"own": 3}, {"d": {}}]
    status, body = await door.ask("/api/batch", {"commands": commands})
    assert status == 200
    assert json.loads(body)["replies"] == [
        {"a": {"n": 0}}, {"b": {"n": 1}}, {"own": {"n": 1}}, {"later": {"n": 2}}, {"c": {"n": 0}},
        AWAY, {"own": {"n": 3}}, {"d": {"n": 0}},
    ]  # fmt: skip
    assert door.calls == [b"1", b"2", b"3"]
    sent = [received.json for received in backend.received]
    assert [one["commands"] for one in sent] == [[{"a": {}}, {"b": {}}], [{"c": {}}], [{"d": {}}]]
    assert not any(one["parallel"] for one in sent)


@with_centrifugo(batch_answer)
async def test_parallel_is_handed_on(door, backend):
    commands = [{"a": {}}, {"own": 1}, {"b": {}}]
    for parallel in (True, False, None):
        await door.ask("/api/batch", {"commands": commands, "parallel": parallel})
    assert [received.json["parallel"] for received in backend.received] == [True, True, False, False, False, False]


@with_centrifugo(batch_answer)
async def test_a_command_with_a_method_of_centrifugos_beside_ours_is_centrifugos(door, backend):
    await door.ask("/api/batch", {"commands": [{"own": {}, "publish": {}}, {"own": None}, {"own": {}}]})
    assert backend.received[0].json["commands"] == [{"own": {}, "publish": {}}, {"own": None}]
    assert door.calls == [b"{}"]


@with_centrifugo(batch_answer)
async def test_thousands_of_own_commands_need_no_deep_stack(door, backend):
    commands = [{"later" if n % 2 else "own": n} for n in range(5000)]
    _, body = await door.ask("/api/batch", {"commands": commands})
    assert [next(iter(one.values()))["n"] for one in json.loads(body)["replies"]] == list(range(1, 5001))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((400, b"Bad Request\n"), {"error": {"code": 107, "message": "bad request"}}),
        ((401, b""), AWAY),
        ((200, b"<html>"), AWAY),
        ((200, b'{"replies":[{}]}'), AWAY),
        ((200, b"\xff"), AWAY),
    ],
    ids=["bad request", "unauthorized", "not json", "too few", "not utf-8"],
)
def test_what_centrifugo_does_not_answer_is_an_error_in_its_place(answer, expected):
    @with_centrifugo(lambda received: answer)
    async def test(door, backend):
        status, body = await door.ask("/api/batch", {"commands": [{"a": {}}, {"b": {}}, {"own": {}}]})
        assert status == 200
        assert json.loads(body)["replies"] == [expected, expected, {"own": {"n": 1}}]

    test()


@with_centrifugo(batch_answer)
async def test_lines_are_answered_in_order(door, backend):
    lines = [{"method": name} for name in ("a", "own", "b", "c", "later", "broken")]
    status, body = await door.ask("/api", "\n".join(map(json.dumps, lines)).encode())
    assert status == 200
    assert [json.loads(line) for line in body.split(b"\n")] == [
        {"result": {"line": 0}}, {"result": {"n": 1}}, {"result": {"line": 0}}, {"result": {"line": 1}},
        {"result": {"n": 2}}, AWAY,
    ]  # fmt: skip


@with_centrifugo(lambda received: (400, b"Bad Request\n"))
async def test_lines_that_centrifugo_does_not_know_are_400_as_a_whole(door, backend):
    assert await door.ask("/api", b'{"method":"own"}\n{"method":"nothere"}') == (400, b"")


@with_centrifugo()
async def test_a_body_with_one_bad_line_does_nothing(door, backend):
    tails = (b"x", b"[]", b'{"method":5}', b'{"id":-1}', b'{"id":4294967296}', b'{"id":1e400}', b"\xff", b"[" * 99_999)
    for body in (*(b'{"method":"own"}\n' + tail for tail in tails), b" \n", b""):
        assert await door.ask("/api", body) == (400, b"")
    assert door.calls == []
    assert backend.received == []


def test_a_centrifugo_that_is_away_is_told_within_a_moment():
    async def main():
        door = Door(f"http://127.0.0.1:{free_port()}")
        assert json.loads((await door.ask("/api/info", {}))[1]) == AWAY
        _, body = await door.ask("/api", b'{"id":3,"method":"a"}\n{"method":"own"}')
        first, second = map(json.loads, body.split(b"\n"))
        assert (first, second) == ({"id": 3, **AWAY}, {"result": {"n": 1}})
        assert door.counted == [Verdict.FAILED, Verdict.FAILED]
        await door.client.close(1.0)

    asyncio.run(main())


# --- publications


def publishing(received: Received) -> object:
    """Centrifugo, which does not know channels that begin with `nope`."""

    def publish(params: dict) -> dict:
        unknown = {"error": {"code": 102, "message": "unknown channel"}}
        return unknown if params["channel"].startswith("nope") else {"result": {"offset": 1}}

    def broadcast(params: dict) -> dict:
        return {"result": {"responses": [publish({"channel": channel}) for channel in params["channels"]]}}

    def do(method: str, params: dict) -> dict:
        return {"publish": publish, "broadcast": broadcast}.get(method, lambda params: {"result": {}})(params)

    def reply(command: dict) -> dict:
        ((method, params),) = command.items()
        done = do(method, params)
        return done if "error" in done else {method: done["result"]}

    method = received.path.removeprefix("/api/")
    if received.path == "/api":
        lines = [json.loads(line) for line in received.body.split(b"\n")]
        return 200, b"\n".join(json.dumps(do(line["method"], line["params"])).encode() for line in lines)
    if method == "batch":
        return {"replies": [reply(command) for command in received.json["commands"]]}
    return do(method, received.json)


ONE, NOPE = {"channel": "one", "data": {"a": 1}}, {"channel": "nope", "data": 1}
MANY = {"channels": ["two", "nope", "three"], "b64data": "AAECAw=="}
TOLD = [("one", 8), ("two", 4), ("three", 4)]


@with_centrifugo(publishing)
async def test_publications_that_were_taken_are_told_with_their_size(door, backend):
    await door.ask("/api/publish", b'{"channel":"one","data":{"a": 1}}')
    await door.ask("/api/publish", NOPE)
    await door.ask("/api/broadcast", MANY)
    await door.ask("/api/presence", ONE)
    assert door.published == TOLD


@with_centrifugo(publishing)
async def test_those_of_a_batch_are_told_whether_it_goes_on_whole_or_in_parts(door, backend):
    commands = [{"publish": ONE}, {"publish": NOPE}, {"broadcast": MANY}, {"presence": ONE}]
    await door.ask("/api/batch", {"commands": commands})
    assert door.published == TOLD
    await door.ask("/api/batch", {"commands": [commands[0], {"own": {}}, *commands[1:]]})
    assert [channel for channel, _ in door.published] == ["one", "two", "three"] * 2


@with_centrifugo(publishing)
async def test_those_of_lines_are_told_whether_they_go_on_whole_or_in_parts(door, backend):
    pairs = (("publish", ONE), ("publish", NOPE), ("broadcast", MANY), ("presence", ONE))
    lines = [json.dumps({"method": method, "params": params}) for method, params in pairs]
    await door.ask("/api", "\n".join(lines).encode())
    await door.ask("/api", "\n".join([lines[0], '{"method":"own"}', *lines[1:]]).encode())
    await door.ask("/api", lines[0].encode())
    assert [channel for channel, _ in door.published] == ["one", "two", "three"] * 2 + ["one"]


@with_centrifugo(lambda received: (200, b'{"result":{'))
async def test_answers_that_make_no_sense_are_handed_on_and_tell_nothing(door, backend):
    for target, body in [("/api/publish", ONE), ("/api/broadcast", MANY), ("/api/batch", {"commands": []})]:
        assert await door.ask(target, body) == (200, b'{"result":{')
    assert door.published == []


@with_centrifugo(publishing, is_observed=False)
async def test_where_nobody_wants_to_know_nothing_is_read(door, backend):
    assert (await door.ask("/api/publish", ONE))[0] == 200
    commands = [{"publish": ONE}, {"own": {}}]
    assert (await door.ask("/api/batch", {"commands": commands}))[0] == 200
    assert door.published == []
