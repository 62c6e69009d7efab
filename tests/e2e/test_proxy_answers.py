"""Contract 4.3: what Centrifugo gets back for every event, with and without a backend."""

import time

import pytest

from tests.support.backend import Backend
from tests.support.service import REFUSED, event, exchange, limits

INTERNAL_ERROR = {"error": {"code": 100, "message": "internal server error", "temporary": True}}
BAD_REQUEST = {"error": {"code": 107, "message": "bad request", "temporary": False}}
NOT_AVAILABLE = {"error": {"code": 108, "message": "not available", "temporary": False}}
DENIED = {"error": {"code": 103, "message": "permission denied", "temporary": False}}
PLAIN_EVENTS = ("subscribe", "publish", "map_publish", "map_remove")
BY_CENTRIFUGO = ("refresh", "sub_refresh")


def behind(backend: Backend, **proxy: object) -> dict:
    return {"proxy": {"upstream": {"endpoint": backend.url}, **proxy}}


def test_publish_over_the_limit_is_refused_with_111(service):
    cpro = service({**limits(publish=(3, "1m")), "proxy": {"without_upstream": "allow"}})
    answers = [cpro.post("publish", event(channel="news")) for _ in range(5)]
    assert answers == [(200, {"result": {}})] * 3 + [(200, REFUSED)] * 2


def test_users_do_not_share_a_bucket(service):
    cpro = service({**limits(publish=(1, "1m")), "proxy": {"without_upstream": "allow"}})
    assert cpro.post("publish", event(user="a"))[1] == {"result": {}}
    assert cpro.post("publish", event(user="b"))[1] == {"result": {}}
    assert cpro.post("publish", event(user="a"))[1] == REFUSED


@pytest.mark.parametrize("kind", PLAIN_EVENTS)
def test_without_backend_events_are_denied(service, kind):
    assert service().post(kind, event(channel="news")) == (200, DENIED)


def test_without_backend_an_rpc_is_not_available(service):
    assert service().post("rpc", event(method="echo")) == (200, NOT_AVAILABLE)


def test_without_backend_a_connect_is_left_to_centrifugo(service):
    assert service().post("connect", {"client": "c1"}) == (200, {})


def test_without_backend_a_trusted_header_names_the_user_of_a_connect(service):
    cpro = service({"proxy": {"connect_user_header": "X-User"}})
    assert cpro.post("connect", {"client": "c1"}, {"X-User": "42"}) == (200, {"result": {"user": "42"}})
    assert cpro.post("connect", {"client": "c1"}) == (200, {})


@pytest.mark.parametrize("kind", BY_CENTRIFUGO)
def test_without_backend_a_refresh_fails_so_that_centrifugo_asks_again(service, kind):
    assert service().post(kind, event(channel="news")) == (502, None)


@pytest.mark.parametrize("kind", BY_CENTRIFUGO)
def test_allowed_without_backend_a_refresh_extends_by_an_hour(service, kind):
    cpro = service({"proxy": {"without_upstream": "allow"}})
    status, answer = cpro.post(kind, event(channel="news"))
    assert status == 200
    assert abs(answer["result"]["expire_at"] - time.time() - 3600) < 5


@pytest.mark.parametrize("kind", BY_CENTRIFUGO)
def test_a_refresh_over_its_own_limit_is_503(service, kind):
    cpro = service({**limits(**{kind: (1, "1m")}), "proxy": {"without_upstream": "allow"}})
    assert cpro.post(kind, event(channel="news"))[0] == 200
    assert cpro.post(kind, event(channel="news")) == (503, None)


@pytest.mark.parametrize("kind", BY_CENTRIFUGO)
def test_default_and_total_never_touch_a_refresh(service, kind):
    cpro = service({**limits(default=(1, "1m"), total=(1, "1m")), "proxy": {"without_upstream": "allow"}})
    assert [cpro.post(kind, event(channel="news"))[0] for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'"x"',
        b'{"user":"42"}',
        b'{"client":1}',
        b'{"client":"c","user":7}',
        b'{"client":"c"}x',
        b'{"client":"\xff"}',
    ],
)
def test_a_body_that_is_no_event_is_a_bad_request(service, body):
    cpro = service({"proxy": {"without_upstream": "allow"}})
    assert cpro.post("publish", body) == (200, BAD_REQUEST)
    assert cpro.post("refresh", body) == (502, None)
    assert cpro.metric('cpro_operations_total{door="proxy",op="publish",verdict="invalid"}') == 1


def test_a_body_nested_beyond_reason_is_a_bad_request(service):
    cpro = service({"proxy": {"without_upstream": "allow"}})
    assert cpro.post("publish", b'{"client":"c","data":' + b"[" * 200_000 + b"]" * 200_000 + b"}") == (200, BAD_REQUEST)
    assert cpro.post("publish", event()) == (200, {"result": {}})


def test_what_passes_reaches_the_backend_and_its_answer_comes_back_untouched(service):
    raw = b'{ "result" : {"data": "\\u003cb\\u003e"} , "x": 1 }'
    with Backend(lambda received: (200, raw)) as backend:
        cpro = service(behind(backend))
        connection = cpro.connect()
        body = b'{"client": "c1","user":"42",  "channel":"news","data":{"a": 1}}'
        connection.request(
            "POST", "/centrifugo/publish?x=1", body, {"Content-Type": "application/json", "X-Trace": "t 1"}
        )
        assert connection.getresponse().read() == raw
    (received,) = backend.received
    assert received.path == "/centrifugo/publish"
    assert received.body == body
    headers = dict(received.headers)
    assert headers["X-Trace"] == "t 1"
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == backend.url.split("/")[2]


def test_hop_by_hop_headers_and_the_secret_stay_here(service):
    with Backend() as backend:
        cpro = service(behind(backend, secret="s3cret"))
        headers = {
            "X-Cpro-Secret": "s3cret",
            "Connection": "X-Hop, keep-alive",
            "X-Hop": "1",
            "TE": "trailers",
            "X-End": "2",
        }
        assert cpro.post("publish", event(), headers) == (200, {"result": {}})
    names = {name.lower() for name, _ in backend.received[0].headers}
    assert "x-end" in names
    assert not names & {"x-cpro-secret", "connection", "x-hop", "te", "keep-alive"}


def test_a_wrong_secret_is_401(service):
    cpro = service({"proxy": {"secret": "s3cret", "without_upstream": "allow"}})
    assert cpro.post("publish", event()) == (401, None)
    assert cpro.post("publish", event(), {"X-Cpro-Secret": "s3cre"}) == (401, None)
    assert cpro.post("publish", event(), {"X-Cpro-Secret": "s3cret"}) == (200, {"result": {}})


@pytest.mark.parametrize(
    "answer",
    [
        (500, b'{"result":{}}'),
        (204, b""),
        (201, b'{"result":{}}'),
        (200, b"not json"),
        (200, b"[]"),
        (200, b""),
        (200, b"\xff"),
        (200, b'{"error":7}'),
    ],
)
def test_a_backend_that_answers_nonsense_is_an_internal_error(service, answer):
    with Backend(lambda received: answer) as backend:
        cpro = service(behind(backend))
        for kind in (*PLAIN_EVENTS, "rpc", "connect"):
            assert cpro.post(kind, event(channel="news", method="m")) == (200, INTERNAL_ERROR)
        for kind in BY_CENTRIFUGO:
            assert cpro.post(kind, event(channel="news")) == (502, None)


@pytest.mark.parametrize("answer", [b'{"result":{"user":7}}', b'{"result":{"user":"\xff"}}', b'{"result":7}'])
def test_a_connect_whose_user_cannot_be_read_is_an_internal_error(service, answer):
    with Backend(lambda received: (200, answer)) as backend:
        assert service(behind(backend)).post("connect", {"client": "c1"}) == (200, INTERNAL_ERROR)


def test_a_dead_backend_is_an_internal_error(service):
    with Backend() as backend:
        pass
    cpro = service(behind(backend))
    assert cpro.post("publish", event()) == (200, INTERNAL_ERROR)
    assert cpro.post("refresh", event()) == (502, None)
    assert cpro.metric('cpro_upstream_requests_total{event="publish",outcome="refused"}') == 1


def test_a_slow_backend_is_an_internal_error_within_the_timeout(service):
    with Backend(lambda received: time.sleep(3.0)) as backend:
        cpro = service({"proxy": {"upstream": {"endpoint": backend.url, "timeout": "200ms"}}})
        began = time.monotonic()
        assert cpro.post("publish", event()) == (200, INTERNAL_ERROR)
        assert time.monotonic() - began < 2.5
        assert cpro.metric('cpro_upstream_requests_total{event="publish",outcome="timed_out"}') == 1


def test_a_refused_operation_never_reaches_the_backend(service):
    with Backend() as backend:
        cpro = service({**limits(publish=(1, "1m")), **behind(backend)})
        assert [cpro.post("publish", event())[1] for _ in range(3)] == [{"result": {}}, REFUSED, REFUSED]
    assert len(backend.received) == 1


def test_the_backends_own_errors_and_disconnects_are_relayed(service):
    answers = [{"error": {"code": 1000, "message": "no"}}, {"disconnect": {"code": 4500, "reason": "bye"}}, {}]
    with Backend(lambda received: answers[len(backend.received) - 1]) as backend:
        cpro = service(behind(backend))
        assert [cpro.post("publish", event())[1] for _ in answers] == answers


def test_a_connect_is_charged_to_the_user_in_the_backends_answer(service):
    with Backend(lambda received: {"result": {"user": received.json["name"]}}) as backend:
        cpro = service({**limits(connect=(2, "1m")), **behind(backend)})

        def connect(name):
            return cpro.post("connect", {"client": "c1", "name": name})[1]

        assert [connect("a") for _ in range(3)] == [{"result": {"user": "a"}}] * 2 + [REFUSED]
        assert connect("b") == {"result": {"user": "b"}}


def test_a_connect_is_charged_however_the_backend_spells_its_keys(service):
    with Backend(lambda received: (200, b'{"Result":{"USER":"a"}}')) as backend:
        cpro = service({**limits(connect=(1, "1m")), **behind(backend)})
        assert cpro.post("connect", {"client": "c1"})[1] == {"Result": {"USER": "a"}}
        assert cpro.post("connect", {"client": "c1"})[1] == REFUSED


@pytest.mark.parametrize(
    "answer",
    [{}, {"error": {"code": 1000, "message": "no"}}, {"disconnect": {"code": 4000, "reason": ""}}, {"result": None}],
)
def test_a_connect_that_establishes_nobody_is_not_charged(service, answer):
    with Backend(lambda received: answer) as backend:
        cpro = service({**limits(connect=(1, "1m")), **behind(backend)})
        assert [cpro.post("connect", {"client": "c1"})[1] for _ in range(3)] == [answer] * 3


def test_one_event_can_go_elsewhere(service):
    with Backend() as general, Backend() as special:
        upstream = {"endpoint": general.url, "overrides": {"rpc": special.url + "/other"}}
        cpro = service({"proxy": {"upstream": upstream}})
        cpro.post("rpc", event(method="m"))
        cpro.post("publish", event())
    assert [received.path for received in special.received] == ["/centrifugo/other"]
    assert [received.path for received in general.received] == ["/centrifugo/publish"]


def test_unknown_paths_are_404_and_other_methods_405(service):
    cpro = service()
    assert cpro.post("nonsense", event()) == (404, None)
    connection = cpro.connect()
    for method in ("GET", "PUT", "HEAD", "DELETE"):
        connection.request(method, "/centrifugo/publish")
        response = connection.getresponse()
        assert (response.status, response.read()) == (405, b"")
    assert exchange(connection, "/centrifugo/publish", event()) == (200, DENIED)
