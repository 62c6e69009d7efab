"""Users' statuses through real cpro processes: on one node, and shared through real Redis."""

import json
import os
import signal
import time

import pytest

from tests.support.processes import eventually
from tests.support.redis import RedisServer
from tests.support.service import REFUSED, Service, event, limit
from tests.support.status import KEY, UPDATED, USER_STATUS, call, result, statuses

NOT_AVAILABLE = {"error": {"code": 108, "message": "not available"}}
AWAY = {"error": {"code": 100, "message": "internal server error"}}
BAD_REQUEST = {"error": {"code": 107, "message": "bad request"}}
ALLOW = {"proxy": {"without_upstream": "allow"}}
METHODS = ("update_user_status", "get_user_status", "delete_user_status")


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module", params=["embedded", "redis"])
def cpro(request, tmp_path_factory):
    """A node with two workers; tests use users of their own."""
    settings = {**USER_STATUS, **ALLOW, "workers": 2}
    if request.param == "redis":
        settings["redis"] = {"address": request.getfixturevalue("redis").address, "io_timeout": "10s"}
    with Service(tmp_path_factory.mktemp("cpro"), settings) as service:
        yield service


def is_now(seconds: int) -> bool:
    return 0 <= time.time() - seconds < 60


def soon(cpro: Service, *users: str) -> dict:
    """Statuses when all workers have had the time to see them."""
    assert eventually(lambda: all(max(times) for times in statuses(cpro, *users).values()))
    return statuses(cpro, *users)


# --- the server API


def test_an_update_by_the_backend_is_seen_as_active_and_not_as_online(cpro):
    assert call(cpro, "update_user_status", {"users": ["api-1", "api-2"]}) == (200, {"result": {}})
    found = soon(cpro, "api-1", "api-2")
    assert all(is_now(active) and not online for active, online in found.values())


def test_order_is_kept_duplicates_are_answered_and_the_unknown_have_no_fields(cpro):
    result(cpro, "update_user_status", "order-1")
    soon(cpro, "order-1")
    answer = result(cpro, "get_user_status", "nobody", "order-1", "nobody", "order-1")["statuses"]
    assert [one["user"] for one in answer] == ["nobody", "order-1", "nobody", "order-1"]
    assert answer[0] == answer[2] == {"user": "nobody"}
    assert answer[1] == answer[3]
    assert set(answer[1]) == {"user", "active"}


def test_the_deleted_are_unknown_and_may_come_back(cpro):
    result(cpro, "update_user_status", "gone", "kept")
    soon(cpro, "gone", "kept")
    assert result(cpro, "delete_user_status", "gone", "never seen") == {}
    found = statuses(cpro, "gone", "kept")
    assert found["gone"] == (0, 0)
    assert is_now(found["kept"][0])
    result(cpro, "update_user_status", "gone")
    assert is_now(soon(cpro, "gone")["gone"][0])


def test_ten_thousand_users_in_one_call(cpro):
    users = [f"many-{number}" for number in range(10_000)]
    assert result(cpro, "update_user_status", *users) == {}
    assert eventually(lambda: all(is_now(active) for active, _ in statuses(cpro, *users).values()))
    assert call(cpro, "get_user_status", {"users": [*users, "one more"]}) == (200, BAD_REQUEST)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "body", [{}, [], {"users": "42"}, {"users": [42]}, {"users": [""]}, {"users": None}], ids=json.dumps
)
def test_bad_values_are_bad_requests(cpro, method, body):
    assert call(cpro, method, body) == (200, BAD_REQUEST)
    assert call(cpro, method, body, X_Centrifugo_Error_Mode="transport")[0] == 400


@pytest.mark.parametrize("method", METHODS)
def test_no_users_are_no_mistake(cpro, method):
    expected = {"statuses": []} if method == "get_user_status" else {}
    assert call(cpro, method, {"users": []}) == (200, {"result": expected})


def test_commands_of_a_batch_see_what_those_before_have_done(cpro):
    users = {"users": ["batch-1"]}
    commands = [
        {"get_user_status": users},
        {"update_user_status": users},
        {"get_user_status": users},
        {"delete_user_status": users},
        {"get_user_status": users},
        {"get_user_status": {"users": 5}},
        {"publish": {"channel": "a", "data": {}}},
    ]
    status, answer = call(cpro, "batch", {"commands": commands})
    assert status == 200
    replies = answer["replies"]
    assert replies[0] == replies[4] == {"get_user_status": {"statuses": [{"user": "batch-1"}]}}
    assert replies[1] == {"update_user_status": {}}
    assert is_now(replies[2]["get_user_status"]["statuses"][0]["active"])
    assert replies[3] == {"delete_user_status": {}}
    assert replies[5] == BAD_REQUEST
    assert replies[6] == {"error": {"code": 104, "message": "not found"}}, "there is no Centrifugo to ask"


def test_the_legacy_endpoint_takes_lines(cpro):
    users = {"users": ["legacy-1"]}
    lines = [
        {"method": "update_user_status", "params": users},
        {"id": 7, "method": "get_user_status", "params": users},
        {"method": "get_user_status", "params": {}},
    ]
    connection = cpro.connect(cpro.api)
    connection.request("POST", "/api", "\n".join(map(json.dumps, lines)) + "\n", KEY)
    response = connection.getresponse()
    first, second, third = map(json.loads, response.read().split(b"\n"))
    connection.close()
    assert first == {"result": {}}
    assert second["id"] == 7
    assert is_now(second["result"]["statuses"][0]["active"])
    assert third == BAD_REQUEST


def test_requests_are_counted(cpro):
    def counted(method: str) -> float:
        return cpro.metric(f'cpro_operations_total{{door="api",op="{method}",verdict="admitted"}}')

    before = [counted(method) for method in METHODS]
    for method in METHODS:
        result(cpro, method, "counted")
    assert [counted(method) for method in METHODS] == [count + 1 for count in before]


# --- clients


def test_a_clients_rpc_is_answered_at_once_and_makes_it_active_and_online(cpro):
    for _ in range(3):
        assert cpro.post("rpc", event("rpc-1", method="update_user_status", data={})) == (200, UPDATED)
    active, online = soon(cpro, "rpc-1")["rpc-1"]
    assert is_now(active)
    assert is_now(online)


def test_an_anonymous_client_has_no_status(cpro):
    denied = {"error": {"code": 103, "message": "permission denied", "temporary": False}}
    assert cpro.post("rpc", event("", method="update_user_status", data={})) == (200, denied)


@pytest.mark.parametrize("name", ["publish", "subscribe", "sub_refresh", "refresh", "rpc"])
def test_any_operation_makes_its_user_online_and_not_active(cpro, name):
    user = f"op-{name}"
    assert cpro.post(name, event(user, channel="news", method="other"))[0] == 200
    active, online = soon(cpro, user)[user]
    assert not active
    assert is_now(online)


def test_rpcs_of_users_are_counted_as_rpcs(cpro):
    sample = 'cpro_operations_total{door="proxy",op="rpc",verdict="admitted"}'
    before = cpro.metric(sample)
    cpro.post("rpc", event("rpc-2", method="update_user_status", data={}))
    assert cpro.metric(sample) == before + 1


def test_a_connect_makes_the_user_online_that_the_answer_names(service):
    one = service({**USER_STATUS, "proxy": {"connect_user_header": "X-User"}})
    assert one.post("connect", {"client": "c1"}, {"X-User": "ann"}) == (200, {"result": {"user": "ann"}})
    assert one.post("connect", {"client": "c1"}) == (200, {})
    active, online = statuses(one, "ann")["ann"]
    assert not active
    assert is_now(online)


def test_who_may_not_connect_is_not_online(service):
    block = {"enabled": True, "connect": limit((1, "1h"))}
    settings = {**USER_STATUS, "proxy": {"connect_user_header": "X-User"}}
    one = service({**settings, "client": {"rate_limit": {"user_command": block}}})
    one.post("connect", {"client": "c1"}, {"X-User": "ann"})
    result(one, "delete_user_status", "ann")
    assert one.post("connect", {"client": "c2"}, {"X-User": "ann"}) == (200, REFUSED)
    assert statuses(one, "ann") == {"ann": (0, 0)}


def test_updates_are_throttled_by_their_own_override(service):
    override = {"method": "update_user_status", "buckets": [{"interval": "1h", "rate": 2}]}
    block = {"enabled": True, "rpc": {**limit((1, "1h")), "method_overrides": [override]}}
    one = service({**USER_STATUS, **ALLOW, "client": {"rate_limit": {"user_command": block}}})
    answers = [one.post("rpc", event(method="update_user_status", data={}))[1] for _ in range(3)]
    assert answers == [UPDATED, UPDATED, REFUSED]
    assert [one.post("rpc", event(method="other"))[1] for _ in range(2)] == [{"result": {}}, REFUSED]


def test_with_user_status_off_its_methods_are_not_available_and_the_rpc_is_like_any_other(service):
    one = service({"http_api": {"key": "k"}, **ALLOW})
    for method in METHODS:
        assert call(one, method, {"users": ["42"]}) == (200, NOT_AVAILABLE)
        assert call(one, method, {"users": ["42"]}, X_Centrifugo_Error_Mode="transport")[0] == 400
    assert one.post("rpc", event(method="update_user_status")) == (200, {"result": {}})
    assert not (one.folder / "data" / "status").exists()


def test_the_forgotten_after_expire_interval_are_unknown(service, redis):
    for settings in ({}, {"redis": {"address": redis.address, "prefix": "short"}}):
        one = service({**USER_STATUS, **settings, "user_status": {"enabled": True, "expire_interval": "2s"}})

        def is_seen(one=one) -> bool:
            result(one, "update_user_status", "brief")
            return is_now(statuses(one, "brief")["brief"][0])

        assert eventually(is_seen)
        assert eventually(lambda one=one: statuses(one, "brief") == {"brief": (0, 0)})


# --- processes that end


def test_statuses_on_the_node_survive_restarts_and_kill_9(service):
    one = service({**USER_STATUS, "workers": 2})
    result(one, "update_user_status", "survivor")
    before = statuses(one, "survivor")
    assert is_now(before["survivor"][0])
    assert one.stop() == 0
    one.start()
    assert statuses(one, "survivor") == before
    one.kill_all()
    one.start()
    assert statuses(one, "survivor") == before
    for pid in one.workers():
        os.kill(pid, signal.SIGKILL)
        one.wait_for("worker died, starting it again")
    assert eventually(lambda: len(one.workers()) == 2)
    assert statuses(one, "survivor") == before


def test_a_damaged_table_keeps_nobody_from_starting(service):
    one = service(USER_STATUS)
    result(one, "update_user_status", "42")
    one.stop()
    (path,) = (one.folder / "data" / "status").glob("*.table")
    path.write_bytes(b"x" * 5000)
    one.start()
    assert statuses(one, "42") == {"42": (0, 0)}
    assert [line for line in one.log if line["message"] == "status table can't be read: set aside"]


def test_what_is_not_written_yet_is_written_on_the_way_out(service, redis):
    one = service({**USER_STATUS, "redis": {"address": redis.address, "prefix": "out"}})
    result(one, "update_user_status", *(f"out-{n}" for n in range(5000)))
    assert one.stop() == 0
    assert len(redis.client().keys("out.status.*")) == 5000


# --- several nodes


def test_an_update_is_seen_on_another_node_within_300_ms(service, redis):
    one, two = (service({**USER_STATUS, **ALLOW, "redis": {"address": redis.address, "prefix": "two"}}) for _ in "12")

    def took_s(user: str) -> float:
        one.post("rpc", event(user, method="update_user_status"))
        began = time.monotonic()
        soon(two, user)
        return time.monotonic() - began

    # the machine may be busy with something else, but not always
    assert any(took_s(f"seen-{number}") < 0.3 for number in range(30))
    result(two, "delete_user_status", "seen-0")
    assert statuses(one, "seen-0") == {"seen-0": (0, 0)}


def test_all_calls_of_a_second_are_one_command_whatever_the_number_of_workers(service, redis):
    one = service({**USER_STATUS, "workers": 3, "redis": {"address": redis.address, "prefix": "once"}})
    client = redis.client()
    client.config_resetstat()
    first = int(time.time())
    for _ in range(200):
        one.post("rpc", event("busy", method="update_user_status"))
    seconds = int(time.time()) - first + 1
    soon(one, "busy")
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert 1 <= calls <= seconds + 1  # and one that found no script


@pytest.mark.parametrize("is_hanging", [False, True], ids=["refusing", "hanging"])
def test_while_redis_is_away_updates_are_kept_reads_fail_and_then_all_is_written(tmp_path, service, is_hanging):
    with RedisServer(tmp_path / "redis") as server:
        one = service(
            {**USER_STATUS, "redis": {"address": server.address, "io_timeout": "1s", "connect_timeout": "1s"}}
        )
        result(one, "update_user_status", "early")
        assert is_now(statuses(one, "early")["early"][0])
        server.pause() if is_hanging else server.stop()
        for number in range(3):  # whoever waited for Redis would never be answered
            assert one.post("rpc", event(f"late-{number}", method="update_user_status")) == (200, UPDATED)
            assert result(one, "update_user_status", f"later-{number}") == {}
            assert call(one, "get_user_status", {"users": ["early"]}) == (200, AWAY)
            assert call(one, "delete_user_status", {"users": ["nobody"]}) == (200, AWAY)
        assert call(one, "get_user_status", {"users": ["x"]}, X_Centrifugo_Error_Mode="transport")[0] == 500
        one.wait_for("store of statuses is away")
        server.resume() if is_hanging else server.restart()
        one.wait_for("store of statuses is back")
        users = [f"{word}-{number}" for word in ("late", "later") for number in range(3)]
        assert eventually(lambda: all(active for active, _ in statuses(one, *users).values()))
        assert one.metric('cpro_store_errors_total{store="status"}') > 0
        assert one.metric("cpro_status_dropped_updates_total") == 0
        assert sum(line["message"] == "store of statuses is away" for line in one.log) == 1
