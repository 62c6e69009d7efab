"""Contract 5, `rate_limit`: real cpro processes, quotas that nobody configured, on one node and through real Redis."""

import asyncio
import json
import re
import shlex
import time
from pathlib import Path

import pytest

from tests.support.envelope import least_admitted, worst_overshoot
from tests.support.hammer import Hammer
from tests.support.processes import eventually
from tests.support.redis import RedisServer
from tests.support.service import Service, exchange, limits
from tests.support.wire import post

KEY = {"X-API-Key": "k"}
API = {"http_api": {"key": "k"}}
BAD_REQUEST = {"error": {"code": 107, "message": "bad request"}}
AWAY = {"error": {"code": 100, "message": "internal server error"}}
DOCUMENT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def call(cpro: Service, body: object, path: str = "/api/rate_limit", **headers: str) -> tuple[int, object]:
    connection = cpro.connect(cpro.api)
    try:
        return exchange(connection, path, body, {**KEY, **{k.replace("_", "-"): v for k, v in headers.items()}})
    finally:
        connection.close()


def ask(cpro: Service, key: str = "q", rate: int = 10, interval: int = 3_600_000, **more: object) -> dict:
    status, answer = call(cpro, {"key": key, "interval": interval, "rate": rate, **more})
    assert status == 200
    return answer["result"]


class QuotaHammer(Hammer):
    """The same demand for one quota: 200 a second."""

    def __init__(self, address, connections: int = 32, key: str = "hot"):
        super().__init__(address, connections)
        body = json.dumps({"key": key, "interval": 1000, "rate": 200}).encode()
        self.request = post(body, b"/api/rate_limit", b"X-API-Key: k\r\n")

    async def _talk(self, reader, writer) -> None:
        while not self._is_over():
            sent = time.monotonic()
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            result = json.loads(await reader.readexactly(length))["result"]
            if result["allowed"]:
                self.admitted.append((sent, time.monotonic()))
            else:
                self.refused.append((sent, time.monotonic()))


def hammer(seconds: float, *hammers: QuotaHammer) -> None:
    """All at once; together they get all of the quota, and not one token more."""

    async def run() -> None:
        await asyncio.gather(*(one.run(seconds, until_refused=True) for one in hammers))

    asyncio.run(run())
    admitted = [times for one in hammers for times in one.admitted]
    refused = [times for one in hammers for times in one.refused]
    assert all(one.refused and not one.broken for one in hammers)
    assert worst_overshoot(admitted, 200, 200) <= 0
    assert len(admitted) >= least_admitted(refused, 200, 200)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One node without Redis."""
    with Service(tmp_path_factory.mktemp("alone"), {**API, "workers": 3}) as cpro:
        yield cpro


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        yield server


def test_three_workers_admit_exactly_the_quota(alone):
    hammer(2, QuotaHammer(lambda: alone.api))


def test_tokens_are_counted_down_and_a_refusal_says_when(alone):
    assert [ask(alone, "down", 3) for _ in range(3)] == [{"allowed": True, "tokens_left": left} for left in (2, 1, 0)]
    refused = ask(alone, "down", 3)
    assert refused.pop("allowed_in") == pytest.approx(1_200_000, abs=10_000)
    assert refused.pop("server_time") == pytest.approx(time.time() * 1000, abs=5000)
    assert refused == {"allowed": False, "tokens_left": 0}


def test_who_waits_as_long_as_told_is_allowed(alone):
    ask(alone, "wait", 2, 500, score=2)
    refused = ask(alone, "wait", 2, 500)
    assert 0 < refused["allowed_in"] <= 250
    time.sleep(refused["allowed_in"] / 1000)
    assert ask(alone, "wait", 2, 500)["allowed"]


def test_a_dry_run_spends_nothing(alone):
    assert [ask(alone, "dry", dry_run=True) for _ in range(3)] == [{"allowed": True, "tokens_left": 9}] * 3
    assert ask(alone, "dry", score=10) == {"allowed": True, "tokens_left": 0}
    assert not ask(alone, "dry", dry_run=True)["allowed"]


def test_a_score_is_taken_whole(alone):
    assert ask(alone, "score", score=7) == {"allowed": True, "tokens_left": 3}
    assert ask(alone, "score", score=4)["tokens_left"] == 3
    assert ask(alone, "score", score=0) == {"allowed": True, "tokens_left": 3}
    assert ask(alone, "score", score=11)["allowed_in"] == -1


@pytest.mark.parametrize(
    "body",
    [
        {"interval": 1000, "rate": 1},
        {"key": "", "interval": 1000, "rate": 1},
        {"key": "k" * 1025, "interval": 1000, "rate": 1},
        {"key": 5, "interval": 1000, "rate": 1},
        {"key": "k", "interval": 0, "rate": 1},
        {"key": "k", "interval": "1s", "rate": 1},
        {"key": "k", "interval": 10**12, "rate": 1},
        {"key": "k", "interval": 1000, "rate": 0},
        {"key": "k", "interval": 1000, "rate": 10**6 + 1},
        {"key": "k", "interval": 1000, "rate": 10**400},
        {"key": "k", "interval": 1000, "rate": 1, "score": -1},
        {"key": "k", "interval": 1000, "rate": 1, "score": 0.5},
        {"key": "k", "interval": 1000, "rate": 1, "dry_run": "yes"},
        [],
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_bad_values_are_bad_requests(alone, body):
    assert call(alone, body) == (200, BAD_REQUEST)
    assert call(alone, body, X_Centrifugo_Error_Mode="transport")[0] == 400
    assert call(alone, {"method": "rate_limit", "params": body}, "/api") == (200, BAD_REQUEST)


@pytest.mark.parametrize(("mode", "status"), [("", 200), ("transport", 400)])
def test_every_answer_with_a_body_says_that_it_is_json(alone, mode, status):
    connection = alone.connect(alone.api)
    connection.request("POST", "/api/rate_limit", b"[]", {**KEY, "X-Centrifugo-Error-Mode": mode})
    response = connection.getresponse()
    assert json.loads(response.read())
    assert (response.status, response.getheader("Content-Type")) == (status, "application/json")
    connection.request("POST", "/api/none", b"{}", KEY)
    response = connection.getresponse()
    assert (response.status, response.read(), response.getheader("Content-Type")) == (404, b"", None)


@pytest.mark.parametrize("body", [b"", b"{", b"{} {}", b"[" * 100_000])
@pytest.mark.parametrize("path", ["/api/rate_limit", "/api"])
def test_what_is_not_json_is_400(alone, path, body):
    assert call(alone, body, path) == (400, None)


def test_text_that_is_not_utf_8_is_400(alone):
    for path, body in [("/api/rate_limit", b'{"key": "\xff"}'), ("/api", b'{"method": "\xff"}')]:
        assert call(alone, body, path) == (400, None)
    assert call(alone, b'{"method": "rate_limit", "params": {"key": "\xff"}}', "/api") == (400, None)


def test_the_legacy_endpoint_names_the_method_in_the_body(alone):
    command = {"method": "rate_limit", "params": {"key": "legacy", "interval": 60000, "rate": 10}}
    assert call(alone, command, "/api") == (200, {"result": {"allowed": True, "tokens_left": 9}})
    assert call(alone, {"method": "other", "params": {}}, "/api") == call(alone, {}, "/api") == (400, None)
    assert call(alone, {}, "/api/other")[0] == 404


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 401),
        ({}, "?api_key=", 401),
        ({}, "?api_key=wrong", 401),
        ({"X-API-Key": "wrong"}, "?api_key=k", 401),
        ({"Authorization": "Bearer k"}, "", 401),
        ({"X-API-Key": "k"}, "", 200),
        ({"Authorization": "apikey k"}, "", 200),
        ({}, "?a=b&api_key=k", 200),
        ({}, "?api_key=%6B", 200),
    ],
)
def test_the_key_opens_in_three_ways(alone, headers, query, status):
    body = {"key": "auth", "interval": 1000, "rate": 100}
    for path in ("/api/rate_limit", "/api"):
        sent = body if path != "/api" else {"method": "rate_limit", "params": body}
        connection = alone.connect(alone.api)
        assert exchange(connection, path + query, sent, headers)[0] == status
        connection.close()


def test_requests_are_counted(alone):
    def counted(verdict: str) -> float:
        return alone.metric(f'cpro_operations_total{{door="api",op="rate_limit",verdict="{verdict}"}}')

    before = [counted(verdict) for verdict in ("admitted", "refused", "dry_run", "invalid")]
    ask(alone, "metrics", 1), ask(alone, "metrics", 1), ask(alone, "metrics", 1, dry_run=True), call(alone, {})
    assert [counted(verdict) for verdict in ("admitted", "refused", "dry_run", "invalid")] == [n + 1 for n in before]


def test_the_documents_example_works(alone):
    command, answer = (re.search(rf"```{kind}\n(.*?)```", DOCUMENT, re.DOTALL)[1] for kind in ("sh", "json"))
    words = shlex.split(command.replace("\\\n", "").replace("<http_api.key>", "k"))
    values = {option: words[words.index(option) + 1] for option in ("-X", "-H", "-d")}
    assert words[0] == "curl"
    assert values["-X"] == "POST"
    path = next(word for word in words if word.startswith("http://127.0.0.1:8002/")).removeprefix(
        "http://127.0.0.1:8002"
    )
    connection = alone.connect(alone.api)
    headers = dict([values["-H"].split(": ")])
    assert exchange(connection, path, values["-d"], headers) == (200, json.loads(answer))


def test_a_quota_survives_a_restart(tmp_path):
    with Service(tmp_path, API) as cpro:
        assert ask(cpro, score=10)["allowed"]
        assert cpro.stop() == 0
        cpro.start()
        assert not ask(cpro)["allowed"]


# --- with Redis


def test_two_nodes_share_a_quota(tmp_path, redis):
    patient = {"rate_limit": {"store_timeout": "5s"}}
    settings = {**API, "redis": {"address": redis.address}, "client": patient, "workers": 2}
    with Service(tmp_path / "1", settings) as one, Service(tmp_path / "2", settings) as two:
        hammer(3, QuotaHammer(lambda: one.api, 16), QuotaHammer(lambda: two.api, 16))
        assert ask(one, score=7) == {"allowed": True, "tokens_left": 3}
        assert ask(two, dry_run=True) == ask(two, dry_run=True) == ask(two) == {"allowed": True, "tokens_left": 2}
        refused = ask(one, score=3)
        assert refused["tokens_left"] == 2
        assert refused["allowed_in"] == pytest.approx(360_000, abs=5000)
        assert ask(two, score=0) == {"allowed": True, "tokens_left": 2}
        assert ask(two, score=11)["allowed_in"] == -1
        assert ask(one, rate=100, score=0)["tokens_left"] == 20, "the share that is used stays"
        assert one.metric('cpro_redis_round_trips_total{shard="0"}') > 0


def test_quotas_are_spread_over_three_shards(tmp_path):
    with (
        RedisServer(tmp_path / "a") as a,
        RedisServer(tmp_path / "b") as b,
        RedisServer(tmp_path / "c") as c,
    ):
        shards = [a, b, c]
        patient = {"rate_limit": {"store_timeout": "5s"}}
        settings = {**API, "redis": {"address": [server.address for server in shards]}, "client": patient}
        with Service(tmp_path / "1", settings) as one, Service(tmp_path / "2", settings) as two:
            for key in map(str, range(12)):
                assert [ask(cpro, key, 2)["allowed"] for cpro in (one, two, one, two)] == [True, True, False, False]
            assert sum(server.client().dbsize() for server in shards) == 12
            assert all(server.client().dbsize() for server in shards)


def test_the_redis_of_redis_user_command_is_used_and_users_are_apart(tmp_path, redis):
    settings = limits("redis_user_command", publish=(5, "1h"))
    settings["client"]["rate_limit"]["redis_user_command"]["redis"] = {"address": redis.address, "prefix": "mine"}
    with Service(tmp_path / "1", {**API, **settings}) as one:
        ask(one, "42", score=10)
        assert [key.decode() for key in redis.client().scan_iter()] == ["mine:quota:42"]


@pytest.mark.parametrize("is_hanging", [False, True], ids=["refusing", "hanging"])
def test_while_redis_is_away_requests_fail_within_the_timeout_and_then_it_recovers(tmp_path, redis, is_hanging):
    settings = {
        **API,
        "redis": {"address": redis.address, "io_timeout": "9s"},
        "client": {"rate_limit": {"store_timeout": "150ms", "on_store_error": "allow"}},
    }
    body = {"key": "q", "interval": 1000, "rate": 10}
    with Service(tmp_path / "1", settings) as one:
        assert ask(one)["allowed"]
        redis.pause() if is_hanging else redis.stop()
        for _ in range(5):
            began = time.monotonic()
            assert call(one, body) == (200, AWAY)
            assert time.monotonic() - began < 9, "it did not wait for the connection to give up"
        assert call(one, body, X_Centrifugo_Error_Mode="transport")[0] == 500
        one.wait_for("store of quotas is away")
        redis.resume() if is_hanging else redis.restart()
        assert eventually(lambda: "error" not in call(one, body)[1], 20)
        one.wait_for("store of quotas is back")
        assert one.metric('cpro_operations_total{door="api",op="rate_limit",verdict="failed"}') >= 6
