"""Rows as the recorder makes them, for a list and for a real journal."""

import uuid
from functools import partial
from pathlib import Path

import pytest

from cpro import clock
from cpro._fast.journal import Journal, RowWriter
from cpro._fast.segment import Segment
from cpro.analytics import recorder as module
from cpro.analytics.recorder import MOST_NAMES, Recorder
from cpro.analytics.schema import BY_NUMBER, TABLES, VERSION
from cpro.config.model import (
    Channel,
    ConnectionsExport,
    Exports,
    OperationsExport,
    PublicationsExport,
    Rpc,
    SubscriptionsExport,
)
from cpro.doors.proxy import BAD_GATEWAY, SERVICE_UNAVAILABLE
from cpro.limits.rules import channel_namespace, rpc_namespace
from cpro.operation import EMPTY_RESULT, INTERNAL_ERROR, TOO_MANY_REQUESTS, Operation, Reply, Verdict
from tests.support.rows import named, rows_in

CLIENT = "0b0c8b0e-6a2b-4c39-9c43-0242ac120002"
ALL = Exports(
    connections=ConnectionsExport(enabled=True, http_headers=("User-Agent", "Origin")),
    subscriptions=SubscriptionsExport(enabled=True),
    operations=OperationsExport(enabled=True),
    publications=PublicationsExport(enabled=True),
)
SECOND = 10**9
NOW = 7 * SECOND
"""Where the clock of `boot_ns` stands at first."""


class World:
    """A recorder with lists in the place of a journal, and clocks that stand still until they are moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.boot_ns, self.wall_ns = NOW, 1_700_000_000 * SECOND + SECOND // 4
        monkeypatch.setattr(clock, "boot_ns", lambda: self.boot_ns)
        monkeypatch.setattr(clock.time, "time_ns", self._read_wall)
        self.wall_reads = 0
        self.rows: list[dict] = []
        appends = {table.number: partial(self._append, table) for table in TABLES}
        self.recorder = Recorder(appends, "n1", clock.Seconds())

    def recording(self, exports: Exports = ALL, channel: Channel = Channel(), rpc: Rpc = Rpc()):  # noqa: B008
        return self.recorder.recording(
            exports, partial(channel_namespace, names=channel), partial(rpc_namespace, names=rpc)
        )

    def _append(self, table, values):
        self.rows.append(named(table, values))

    def _read_wall(self) -> int:
        self.wall_reads += 1
        return self.wall_ns


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def operation(kind: str = "publish", user: str = "42", started_ns: int = NOW, **fields: str) -> Operation:
    return Operation(kind, CLIENT, user, started_ns=started_ns, **fields)


def test_an_operation_is_one_row(world: World):
    reply = Reply(b"...", error=103, disconnect=4001)
    world.recording().operation(operation(channel="$chat:index"), Verdict.ADMITTED, reply, 12_345)
    assert world.rows == [
        {
            "client": CLIENT,
            "user": "42",
            "op": "publish",
            "channel": "$chat:index",
            "method": "",
            "error": 103,
            "disconnect": 4001,
            "duration": 12_345,
            "labels": {},
            "namespace": "chat",
            "node": "n1",
            "time": 1_700_000_000,
        }
    ]


def test_a_call_has_the_namespace_of_its_method(world: World):
    world.recording().call(operation("rpc", method="game:move:fast"), Verdict.ADMITTED, EMPTY_RESULT, 1)
    world.recording(rpc=Rpc(namespace_boundary="")).call(
        operation("rpc", method="game:move"), Verdict.ADMITTED, EMPTY_RESULT, 1
    )
    assert [(row["method"], row["namespace"]) for row in world.rows] == [("game:move:fast", "game"), ("game:move", "")]


@pytest.mark.parametrize(
    ("channel", "namespace"),
    [("chat:index", "chat"), ("$chat:x", "chat"), ("news", ""), ("a:b:c", "a"), (":x", ""), ("chat#1", ""), ("", "")],
)
def test_namespaces_are_centrifugos(world: World, channel: str, namespace: str):
    recording = world.recording()
    for _ in range(2):  # found, then kept
        recording.operation(operation(channel=channel), Verdict.ADMITTED, EMPTY_RESULT, 1)
    recording.subscription(CLIENT, "42", channel, NOW)
    recording.publication(channel, "client", 1, CLIENT, "42", NOW)
    assert [row["namespace"] for row in world.rows] == [namespace] * 4


def test_boundaries_are_those_of_the_settings(world: World):
    recording = world.recording(channel=Channel(namespace_boundary="/", private_prefix="!"))
    recording.subscription(CLIENT, "42", "!chat/x:y", NOW)
    assert world.rows[0]["namespace"] == "chat"


def test_namespaces_that_are_kept_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch):
    found = []
    kept = module._Namespaces(lambda name: found.append(name) or name[:1])
    for number in range(3 * MOST_NAMES):
        assert kept[f"{number}"] == f"{number}"[:1]
        assert len(kept) <= MOST_NAMES
    assert kept[f"{3 * MOST_NAMES - 1}"]
    assert len(found) == 3 * MOST_NAMES


@pytest.mark.parametrize(
    ("verdict", "reply", "error"),
    [
        (Verdict.ADMITTED, EMPTY_RESULT, 0),
        (Verdict.DRY_RUN, EMPTY_RESULT, 0),
        (Verdict.REFUSED, TOO_MANY_REQUESTS, 111),
        (Verdict.FAILED, INTERNAL_ERROR, 100),
        (Verdict.REFUSED, SERVICE_UNAVAILABLE, 111),
        (Verdict.FAILED, BAD_GATEWAY, 100),
        (Verdict.INVALID, BAD_GATEWAY, 100),
    ],
)
def test_the_error_is_what_was_answered_by_code_or_by_status(world: World, verdict: Verdict, reply: Reply, error: int):
    world.recording().operation(operation("refresh"), verdict, reply, 1)
    assert world.rows[0]["error"] == error


def test_a_connection_is_one_row(world: World):
    world.recording().connection(CLIENT, "42", ("js", "5", "websocket", "json"), {"Origin": ["a", "b"]}, NOW, 5, 0)
    assert world.rows == [
        {
            "client": CLIENT,
            "user": "42",
            "name": "js",
            "version": "5",
            "transport": "websocket",
            "headers": {"Origin": ["a", "b"]},
            "metadata": {},
            "labels": {},
            "latency": 5,
            "node": "n1",
            "protocol": "json",
            "connected_at": 1_700_000_000,
            "time": 1_700_000_000,
        }
    ]


def test_a_connection_that_was_made_before_says_when(world: World):
    world.recording().connection(CLIENT, "42", ("js", "5", "websocket", "json"), {}, NOW, 0, 1_600_000_000)
    (row,) = world.rows
    assert (row["connected_at"], row["time"]) == (1_600_000_000, 1_700_000_000)


def test_publications_have_uids_of_their_own(world: World):
    recording = world.recording()
    recording.publication("chat:x", "client", 7, CLIENT, "42", NOW)
    world.recording().publication("news", "api", 0, "", "", NOW)
    first, second = world.rows
    assert {**first, "uid": ""} == {
        "uid": "",
        "channel": "chat:x",
        "source": "client",
        "size": 7,
        "client": CLIENT,
        "user": "42",
        "namespace": "chat",
        "node": "n1",
        "time": 1_700_000_000,
    }
    assert (second["source"], second["client"], second["user"]) == ("api", "", "")
    other = World.__new__(World)
    other.recorder = Recorder(world.recorder._appends, "n2", clock.Seconds())
    other.recording().publication("news", "client", 0, CLIENT, "42", NOW)
    assert len({row["uid"] for row in world.rows}) == 3


def test_uids_are_uuids_and_none_comes_twice(world: World):
    record = world.recording().publication
    for _ in range(1000):
        record("c", "client", 1, CLIENT, "42", NOW)
    uids = [row["uid"] for row in world.rows]
    assert len(set(uids)) == 1000
    assert all(str(uuid.UUID(uid)) == uid and uuid.UUID(uid).version == 4 for uid in uids)


def test_the_wall_clock_is_read_once_a_second(world: World):
    recording, before = world.recording(), world.wall_reads
    for tenth in range(1, 31):
        world.boot_ns, world.wall_ns = world.boot_ns + SECOND // 10, world.wall_ns + SECOND // 10
        started_ns = world.boot_ns - 1000
        recording.operation(operation(started_ns=started_ns), Verdict.ADMITTED, EMPTY_RESULT, 1000)
        assert world.rows[-1]["time"] == world.wall_ns // SECOND
        recording.subscription(CLIENT, "42", "x", world.boot_ns)
        assert world.rows[-1]["time"] == world.wall_ns // SECOND, tenth
    assert world.wall_reads - before == 3


def test_a_clock_that_is_set_back_is_followed(world: World):
    recording = world.recording()
    world.wall_ns -= 3600 * SECOND
    world.boot_ns += SECOND
    recording.subscription(CLIENT, "42", "x", world.boot_ns)
    assert world.rows[0]["time"] == 1_700_000_000 - 3600


def test_tables_that_are_not_exported_have_no_function(world: World):
    nothing = world.recording(Exports())
    assert (nothing.operation, nothing.call, nothing.connection, nothing.subscription, nothing.publication) == (
        None,
    ) * 5
    only = world.recording(Exports(subscriptions=SubscriptionsExport(enabled=True)))
    assert only.operation is None
    assert only.subscription is not None
    assert (world.recording().headers, only.headers) == (("User-Agent", "Origin"), ())


def test_only_some_users_or_channels_are_exported(world: World):
    recording = world.recording(
        Exports(
            connections=ConnectionsExport(enabled=True, export_users=("a", "b")),
            subscriptions=SubscriptionsExport(enabled=True, export_users=("b",)),
            operations=OperationsExport(enabled=True, export_users=("c", "")),
            publications=PublicationsExport(enabled=True, export_channels=("x:1",)),
        )
    )
    for user in ("", "a", "b", "c"):
        recording.connection(CLIENT, user, ("", "", "", ""), {}, NOW, 0, 0)
        recording.subscription(CLIENT, user, "x:1", NOW)
        recording.operation(operation(user=user), Verdict.ADMITTED, EMPTY_RESULT, 1)
        recording.call(operation("rpc", user=user), Verdict.ADMITTED, EMPTY_RESULT, 1)
        for channel in ("x:1", "x:2", "$x:1"):
            recording.publication(channel, "client", 1, CLIENT, user, NOW)
    users = [(sorted(row)[0] if "op" not in row else row["op"], row["user"]) for row in world.rows if "uid" not in row]
    assert sorted(users) == [
        ("channel", "b"),
        ("client", "a"),
        ("client", "b"),
        ("publish", ""),
        ("publish", "c"),
        ("rpc", ""),
        ("rpc", "c"),
    ]
    assert [row["channel"] for row in world.rows if "uid" in row] == ["x:1"] * 4


def test_no_filter_adds_nothing_to_the_way_of_a_row(world: World):
    def name_of(function) -> str:
        return function.__qualname__

    free = world.recording()
    some = world.recording(Exports(operations=OperationsExport(enabled=True, export_users=("a",))))
    assert name_of(free.operation) == "Recorder._operation.<locals>.record"
    assert name_of(some.operation) != name_of(free.operation)


ODD = ["", "\ud800", "\0", "a" * 100_000, "ключ:значение", "'; DROP TABLE", CLIENT.upper(), "\U0001f600:x"]


def test_what_was_recorded_is_read_back_from_a_journal(tmp_path: Path):
    segment = Segment.create(str(tmp_path / "1.seg"), 16 << 20, VERSION)
    journal = Journal()
    journal.switch(segment)
    appends = {table.number: RowWriter(journal, table.number, table.kinds).append for table in BY_NUMBER.values()}
    recording = Recorder(appends, "n1", clock.Seconds()).recording(
        ALL, partial(channel_namespace, names=Channel()), partial(rpc_namespace, names=Rpc())
    )
    for text in ODD:
        recording.operation(Operation("rpc", text, text, text, text), Verdict.ADMITTED, EMPTY_RESULT, 2**62)
        recording.connection(text, text, (text, text, text, text), {text: [text, text]}, 0, 0, 0)
        recording.subscription(text, text, text, 0)
        recording.publication(text, text, 2**40, text, text, 0)
    rows = rows_in(tmp_path)
    expected = [text.replace("\ud800", "\ufffd") for text in ODD]
    for name in ("operations", "connections", "subscriptions", "publications"):
        assert [row["client"] for row in rows[name]] == expected
        assert [row["user"] for row in rows[name]] == expected
    assert [row["headers"] for row in rows["connections"]] == [{text: [text, text]} for text in expected]
    assert {row["duration"] for row in rows["operations"]} == {2**62}
    assert sum(journal.dropped) == 0
    segment.close()
