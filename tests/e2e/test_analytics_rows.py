"""Contract 6, its first half: what the proxy door has answered is in the journal, row by row, as it was.

ClickHouse is away all the time, so that rows stay in the journal.
"""

import base64
import json
import re
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.backend import Backend, Received
from tests.support.packages import with_packages, write_plugin
from tests.support.processes import eventually, log_so_far
from tests.support.rows import TABLES, Row, analytics, rows_of
from tests.support.service import event, exchange, limits

CLIENT = "0b0c8b0e-6a2b-4c39-9c43-0242ac120002"


def without(rows: list[Row], *names: str) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def facts(row: Row) -> tuple:
    return tuple(row[name] for name in ("op", "user", "channel", "method", "error", "disconnect", "namespace"))


ANSWERS = {
    "connect": {"result": {"user": "7", "channels": ["news", "chat:a"], "subs": {"$private:b": {}, "news": {}}}},
    "refresh": {"result": {"expire_at": 1}},
    "subscribe": {"result": {}},
    "publish": {"result": {"data": {"replaced": True}}},
    "sub_refresh": {"error": {"code": 4007, "message": "x"}},
    "rpc": {"error": {"code": 1234, "message": "x", "temporary": True}, "disconnect": {"code": 4501, "reason": "y"}},
    "map_publish": {},
    "map_remove": {"disconnect": {"code": 4000, "reason": "bye"}},
}


def answer_of(received: Received) -> object:
    return ANSWERS[received.path.rsplit("/", 1)[1]]


def test_every_event_leaves_the_rows_of_what_was_asked_and_answered(service):
    began = int(time.time())
    with Backend(answer_of) as backend:
        headers = {"connections": {"http_headers": ["user-agent", "Origin", "x-none"]}}
        cpro = service({**analytics(**headers), "proxy": {"upstream": {"endpoint": backend.url}}})
        connect = {key: value for key, value in event(client=CLIENT, name="js", version="5.3").items() if key != "user"}
        cpro.post("connect", connect, {"User-Agent": "tests/1", "Origin": "http://o", "Cookie": "hush"})
        cpro.post("refresh", event(client=CLIENT))
        cpro.post("subscribe", event(client=CLIENT, channel="chat:index"))
        cpro.post("publish", event(client=CLIENT, channel="$chat:index", data={"a": 1}))
        cpro.post("sub_refresh", event(client=CLIENT, channel="news"))
        cpro.post("rpc", event(client=CLIENT, method="game:move"))
        cpro.post("map_publish", event(client=CLIENT, channel="board:1", b64data=base64.b64encode(b"12345").decode()))
        cpro.post("map_remove", event(client=CLIENT, channel="board:1", key="k"))
        rows = rows_of(cpro)
    assert [facts(row) for row in rows["operations"]] == [
        ("connect", "7", "", "", 0, 0, ""),
        ("refresh", "42", "", "", 0, 0, ""),
        ("subscribe", "42", "chat:index", "", 0, 0, "chat"),
        ("publish", "42", "$chat:index", "", 0, 0, "chat"),
        ("sub_refresh", "42", "news", "", 4007, 0, ""),
        ("rpc", "42", "", "game:move", 1234, 4501, "game"),
        ("map_publish", "42", "board:1", "", 0, 0, "board"),
        ("map_remove", "42", "board:1", "", 0, 4000, "board"),
    ]
    assert all(0 < row["duration"] < 10**10 for row in rows["operations"])
    (connection,) = without(rows["connections"], "time", "connected_at")
    assert connection == {
        "client": CLIENT,
        "user": "7",
        "name": "js",
        "version": "5.3",
        "transport": "websocket",
        "headers": {"User-Agent": ["tests/1"], "Origin": ["http://o"]},
        "metadata": {},
        "labels": {},
        "latency": 0,
        "node": "n1",
        "protocol": "json",
    }
    assert [(row["user"], row["channel"], row["namespace"]) for row in rows["subscriptions"]] == [
        ("7", "news", ""),
        ("7", "chat:a", "chat"),
        ("7", "$private:b", "private"),
        ("42", "chat:index", "chat"),
    ]
    published = without(rows["publications"], "uid", "time")
    common = {"source": "client", "client": CLIENT, "user": "42", "node": "n1"}
    assert published == [
        {"channel": "$chat:index", "size": len('{"replaced": true}'), "namespace": "chat", **common},
        {"channel": "board:1", "size": 5, "namespace": "board", **common},
    ]
    everything = [row for table in rows.values() for row in table]
    assert len(everything) == 8 + 1 + 4 + 2
    assert {(row["client"], row["node"]) for row in everything} == {(CLIENT, "n1")}
    assert all(began <= row["time"] <= time.time() for row in everything)
    assert "hush" not in json.dumps(rows)


def test_refusals_are_operations_with_the_code_that_the_user_was_told(service):
    once = (1, "1h")
    blocked = limits(connect=once, publish=once, subscribe=once, rpc=once, refresh=once, sub_refresh=once)
    with Backend(lambda received: {"result": {"user": "42", "expire_at": 1}}) as backend:
        cpro = service({**analytics(), **blocked, "proxy": {"upstream": {"endpoint": backend.url}}})
        for _ in range(2):
            for name in ("connect", "publish", "subscribe", "rpc", "refresh", "sub_refresh"):
                cpro.post(name, event(channel="c" if name != "rpc" else ""))
        rows = rows_of(cpro)
    first, second = rows["operations"][:6], rows["operations"][6:]
    assert [row["error"] for row in first] == [0] * 6
    assert [(row["op"], row["user"], row["error"]) for row in second] == [
        (name, "42", 111) for name in ("connect", "publish", "subscribe", "rpc", "refresh", "sub_refresh")
    ]
    assert [len(rows[name]) for name in ("connections", "subscriptions", "publications")] == [1, 1, 1]


def test_a_dry_run_refuses_nothing_and_leaves_the_rows_of_what_happened(service):
    blocked = limits(publish=(1, "1h"), dry_run=True)
    cpro = service({**analytics(), **blocked, "proxy": {"without_upstream": "allow"}})
    for _ in range(3):
        assert cpro.post("publish", event(channel="c", data=[1]))[1] == {"result": {}}
    rows = rows_of(cpro)
    assert [row["error"] for row in rows["operations"]] == [0, 0, 0]
    assert len({row["uid"] for row in rows["publications"]}) == 3


@pytest.mark.parametrize(
    "answer", [(500, b"{}"), (200, b"nonsense"), (200, b""), (200, b'{"error":{"code":-5,"message":"x"}}')]
)
def test_a_backend_that_fails_is_the_error_that_the_user_was_told(service, answer: tuple[int, bytes]):
    with Backend(lambda received: answer) as backend:
        cpro = service({**analytics(), "proxy": {"upstream": {"endpoint": backend.url}}})
        told = [cpro.post(name, event(channel="c"))[0] for name in ("connect", "publish", "subscribe", "refresh")]
        rows = rows_of(cpro)
    assert told == [200, 200, 200, 502]
    assert [row["error"] for row in rows["operations"]] == [100] * 4
    assert sum(len(table) for table in rows.values()) == 4


def test_without_a_backend_the_answers_are_cpros_own(service):
    cpro = service(analytics())
    told = [cpro.post(name, event(channel="c"))[1] for name in ("connect", "publish", "subscribe", "rpc", "refresh")]
    rows = rows_of(cpro)
    assert [(answer or {}).get("error", {}).get("code", 0) for answer in told] == [0, 103, 103, 108, 0]
    assert [row["error"] for row in rows["operations"]] == [0, 103, 103, 108, 100]
    assert sum(len(table) for table in rows.values()) == 5


def test_what_is_not_an_event_or_not_centrifugos_leaves_no_row(service):
    cpro = service({**analytics(), "proxy": {"secret": "hush", "without_upstream": "allow"}})
    told = {"X-Cpro-Secret": "hush"}
    assert cpro.post("publish", event(channel="c"))[0] == 401
    assert cpro.post("nothing", event(), told)[0] == 404
    assert cpro.post("publish", '{"client": 5}', told)[1]["error"]["code"] == 107
    assert cpro.post("publish", event(channel="c"), told)[0] == 200
    rows = rows_of(cpro)
    assert {name: len(rows[name]) for name in TABLES} == {
        "connections": 0,
        "subscriptions": 0,
        "operations": 1,
        "publications": 1,
    }


def test_calls_of_the_server_api_are_nobodys_operations(service):
    cpro = service({**analytics(), "http_api": {"key": "k"}})
    connection = cpro.connect(cpro.api)
    quota = {"key": "a", "interval": 60000, "rate": 5}
    assert exchange(connection, "/api/rate_limit", quota, {"X-API-Key": "k"})[0] == 200
    cpro.post("rpc", event(method="m"))
    assert [row["op"] for row in rows_of(cpro)["operations"]] == ["rpc"]


VIP = """
    from cpro.plugins import OperationType, hookimpl, result_reply, error_reply

    async def vote(operation):
        if operation.method == "vote:wrong":
            return error_reply(1400, "wrong")
        if operation.method == "vote:raise":
            raise ValueError("bug of the plugin")
        return result_reply(data=1)

    async def join(operation):
        return result_reply() if operation.channel == "vip:a" else None

    @hookimpl
    def cpro_operations(config):
        return [
            OperationType(name="vote", handle=vote, namespaces=["vote"]),
            OperationType(name="join", handle=join, events=["subscribe", "publish"]),
        ]
"""


def test_operations_of_plugins_have_their_own_names_and_the_rows_of_their_events(service, tmp_path: Path):
    write_plugin(tmp_path / "packages", "vip", VIP)
    cpro = service(analytics(), env=with_packages(tmp_path / "packages"))
    for method in ("vote:up", "vote:wrong", "vote:raise", "other"):
        cpro.post("rpc", event(method=method))
    for name, channel in (("subscribe", "vip:a"), ("subscribe", "b"), ("publish", "vip:a")):
        cpro.post(name, event(channel=channel, data="abc"))
    rows = rows_of(cpro)
    assert [facts(row) for row in rows["operations"]] == [
        ("vote", "42", "", "vote:up", 0, 0, "vote"),
        ("vote", "42", "", "vote:wrong", 1400, 0, "vote"),
        ("vote", "42", "", "vote:raise", 100, 0, "vote"),
        ("rpc", "42", "", "other", 108, 0, ""),
        ("join", "42", "vip:a", "", 0, 0, "vip"),
        ("join", "42", "b", "", 103, 0, ""),
        ("join", "42", "vip:a", "", 0, 0, "vip"),
    ]
    assert [row["channel"] for row in rows["subscriptions"]] == ["vip:a"]
    assert [(row["channel"], row["size"]) for row in rows["publications"]] == [("vip:a", 5)]


SPOILER = """
    from cpro.plugins import OperationType, hookimpl, result_reply

    async def spoil(operation):
        operation.user = operation.channel = operation
        return result_reply(data=operation.client)

    @hookimpl
    def cpro_operations(config):
        return [OperationType(name="spoil", handle=spoil, methods=["spoil"])]
"""


def test_a_plugin_that_spoils_its_operation_loses_the_row_and_not_the_answer(service, tmp_path: Path):
    write_plugin(tmp_path / "packages", "spoiler", SPOILER)
    cpro = service(analytics(), env=with_packages(tmp_path / "packages"))
    assert cpro.post("rpc", event(client="c9", method="spoil")) == (200, {"result": {"data": "c9"}})
    cpro.post("rpc", event(method="other"))
    assert cpro.wait_for("operation can't be told of")["op"] == "spoil"
    assert [row["op"] for row in rows_of(cpro)["operations"]] == ["rpc"]


def test_only_chosen_users_and_channels_are_exported_and_a_reload_chooses_anew(service):
    cpro = service({
        **analytics(operations={"export_users": ["a", ""]}, publications={"export_channels": ["one"]}),
        "proxy": {"without_upstream": "allow"},
    })  # fmt: skip

    def publish_all() -> None:
        for user in ("a", "b", ""):
            for channel in ("one", "two"):
                cpro.post("publish", event(user, channel=channel))

    publish_all()
    before = rows_of(cpro)
    assert Counter(row["user"] for row in before["operations"]) == {"a": 2, "": 2}
    assert Counter((row["user"], row["channel"]) for row in before["publications"]) == {
        (user, "one"): 1 for user in ("a", "b", "")
    }
    cpro.reload({**analytics("operations", operations={"export_users": ["b"]}), "proxy": {"without_upstream": "allow"}})
    publish_all()
    after = rows_of(cpro)
    assert [row["user"] for row in after["operations"][4:]] == ["b", "b"]
    assert after["publications"] == before["publications"]


def test_headers_are_exported_only_by_name_and_the_services_own_secret_never(service):
    secrets = {"Authorization": "hush-1", "Cookie": "hush-2", "X-Api-Key": "hush-3", "X-Cpro-Secret": "hush-4"}
    settings = {"proxy": {"secret": "hush-4", "connect_user_header": "X-User"}}
    cpro = service({**analytics(), **settings})
    cpro.post("connect", event(), {**secrets, "X-User": "42"})
    (connection,) = rows_of(cpro)["connections"]
    assert (connection["user"], connection["headers"]) == ("42", {})
    named = {"connections": {"http_headers": ["cookie", "X-User"]}}
    cpro.reload({**analytics(**named), **settings})
    cpro.post("connect", event(), {**secrets, "X-User": "42"})
    assert rows_of(cpro)["connections"][1]["headers"] == {"Cookie": ["hush-2"], "X-User": ["42"]}
    written = b"".join(path.read_bytes() for path in (cpro.folder / "data" / "journal").rglob("*.seg"))
    assert b"hush-2" in written
    assert not re.search(rb"hush-[134]", written)
    assert "hush" not in json.dumps(log_so_far(cpro))
    cpro.write({**analytics(connections={"http_headers": ["X-Cpro-Secret"]}), **settings})
    cpro.process.send_signal(signal.SIGHUP)
    assert "cpro's own secret" in str(cpro.wait_for("reload refused, the old configuration stays"))


def test_the_node_is_named_after_the_host(service):
    cpro = service({**analytics(), "node": {}})
    cpro.post("rpc", event())
    assert rows_of(cpro)["operations"][0]["node"] == socket.gethostname()


def test_workers_write_journals_of_their_own_and_count_together(service):
    cpro = service({**analytics(), "workers": 2, "proxy": {"without_upstream": "allow"}})
    connections = [cpro.connect() for _ in range(12)]
    for number, connection in enumerate(connections):
        for turn in range(5):
            exchange(connection, "/centrifugo/publish", event(client=f"{number}-{turn}", channel="c"))
    rows = rows_of(cpro)
    expected = sorted(f"{number}-{turn}" for number in range(12) for turn in range(5))
    assert sorted(row["client"] for row in rows["operations"]) == expected
    assert sorted(row["client"] for row in rows["publications"]) == expected
    assert len({row["uid"] for row in rows["publications"]}) == 60
    assert {path.parent.name for path in (cpro.folder / "data" / "journal").rglob("*.seg")} == {"0", "1"}
    for table in ("operations", "publications"):
        assert eventually(lambda table=table: cpro.metric(f'cpro_journal_rows_total{{table="{table}"}}') == 60)
    assert cpro.metric('cpro_journal_dropped_rows_total{table="operations"}') == 0
    assert eventually(lambda: cpro.metric("cpro_journal_bytes") > 0)


def test_a_stop_leaves_the_rows_of_every_answer_and_a_start_goes_on(service):
    cpro = service({**analytics(), "proxy": {"without_upstream": "allow"}})
    cpro.post("publish", event(client="before", channel="c"))
    assert cpro.stop() == 0
    assert len(list((cpro.folder / "data" / "journal").rglob("*.seg"))) == 1  # no spare one is left behind
    cpro.start()
    cpro.post("publish", event(client="after", channel="c"))
    assert [row["client"] for row in rows_of(cpro)["operations"]] == ["before", "after"]


def test_without_analytics_there_is_no_journal_and_nothing_of_it_is_loaded(service):
    off = analytics()
    off["clickhouse_analytics"]["enabled"] = False
    cpro = service({**off, "proxy": {"without_upstream": "allow"}})
    cpro.post("publish", event(channel="c"))
    assert not (cpro.folder / "data" / "journal").exists()
    for pid in [cpro.process.pid, *cpro.workers()]:
        assert "_fast/journal" not in Path(f"/proc/{pid}/maps").read_text()
    cpro.reload({**analytics(), "proxy": {"without_upstream": "allow"}})
    assert any(entry.get("setting") == "clickhouse_analytics.enabled" for entry in cpro.log)
    cpro.post("publish", event(channel="c"))
    assert not (cpro.folder / "data" / "journal").exists()


def test_a_journal_that_cant_be_made_keeps_nobody_from_being_served(service, tmp_path: Path):
    data = tmp_path / "cpro0" / "data"
    data.mkdir(parents=True)
    (data / "journal").write_text("in the way")
    cpro = service({**analytics(), "proxy": {"without_upstream": "allow"}})
    for _ in range(5):
        assert cpro.post("publish", event(channel="c"))[1] == {"result": {}}
    assert eventually(lambda: cpro.metric('cpro_journal_dropped_rows_total{table="operations"}') == 5)
    assert cpro.metric('cpro_journal_rows_total{table="operations"}') == 0
    troubles = [entry for entry in log_so_far(cpro) if entry["message"] == "journal in trouble"]
    assert [entry["trouble"] for entry in troubles] == ["away"]
    (data / "journal").unlink()
    cpro.wait_for("journal recovered")
    cpro.post("publish", event(channel="c"))
    assert len(rows_of(cpro)["operations"]) == 1
    assert cpro.stop() == 0
