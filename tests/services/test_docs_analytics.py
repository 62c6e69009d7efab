"""Every query of docs/analytics.md, run by the real engine on rows whose answers are known."""

import json
import re

import pytest

from cpro.analytics.rollups import ROLLUPS
from cpro.analytics.schema import CONNECTIONS, PUBLICATIONS, SUBSCRIPTIONS, TABLES
from cpro.clock import unix_seconds
from cpro.config.load import load
from tests.support.analytics import operation, row_of
from tests.support.deeds import PAGE, QUERIES, question
from tests.support.embedded import EmbeddedProcess

RECENT = unix_seconds() + 600
"""Of the last minute, however late in a long run the queries are asked."""
EARLIER = RECENT - 20 * 60
LONG_AGO = RECENT - 3 * 3600


def publish(user, channel="chat:index", **values):
    return operation(0, user=user, channel=channel, time=values.pop("time", RECENT), **values)


def published(user, channel, size, client):
    return row_of(PUBLICATIONS, user=user, channel=channel, size=size, client=client, source="client", time=RECENT)


def connected(user, client, time=RECENT, name="js", transport="websocket"):
    return row_of(CONNECTIONS, user=user, client=client, name=name, version="1", transport=transport, time=time)


def subscribed(user, channel="chat:index", time=RECENT):
    return row_of(SUBSCRIPTIONS, user=user, client=f"of {user}", channel=channel, time=time)


OPERATIONS = [
    *(publish("200", error=111, duration=1_000_000) for _ in range(3)),
    *(publish("200", error=111, time=EARLIER, duration=1_000_000) for _ in range(4)),
    *(publish("200", error=111, time=LONG_AGO, duration=1_000_000) for _ in range(5)),
    *(publish("201", error=111, duration=1_000_000) for _ in range(2)),
    *(publish("202", error=103, duration=1_000_000) for _ in range(6)),
    *(publish("203", duration=20_000_000) for _ in range(4)),
    operation(0, user="203", op="connect", time=RECENT, duration=7_000_000),
    operation(0, user="", op="connect", time=RECENT, error=111, duration=7_000_000),
    operation(0, user="204", op="rpc", time=EARLIER, error=111, duration=3_000_000),
]
ROWS = {
    1: OPERATIONS,
    2: [
        connected("200", "a"),
        connected("200", "b"),
        connected("200", "b"),
        connected("201", "c", name="swift", transport="sse"),
        connected("202", "d", time=RECENT - 2 * 86400),
    ],
    3: [
        subscribed("200"),
        subscribed("200"),
        subscribed("201"),
        subscribed("202", channel="chat:other"),
        subscribed("203", time=EARLIER),
    ],
    4: [
        published("200", "chat:index", 10, "a"),
        published("200", "chat:index", 20, "a"),
        published("201", "chat:index", 30, "c"),
        published("201", "news", 1000, "c"),
    ],
}
BUSIEST_PUBLISHERS = [{"num_ops": 6, "user": "202"}, {"num_ops": 4, "user": "203"}, {"num_ops": 3, "user": "200"}]
REFUSED = [{"user": "200", "refused": 7}, {"user": "201", "refused": 2}]
ANSWERS = {
    "count() AS refused": REFUSED,
    "sum(count) AS refused": REFUSED,
    "error = 111 AND op = 'publish'\n": [{"count()": 14}],
    "user = '200'": [{"count()": 12}],
    "count() AS operations\n": [
        {"user": "200", "operations": 7},
        {"user": "202", "operations": 6},
        {"user": "203", "operations": 5},
        {"user": "201", "operations": 2},
        {"user": "", "operations": 1},
        {"user": "204", "operations": 1},
    ],
    "count(op) AS num_ops": [*BUSIEST_PUBLISHERS, {"num_ops": 2, "user": "201"}],
    "sum(size) AS bytes": [
        {"channel": "chat:index", "messages": 3, "bytes": 60, "users": 2},
        {"channel": "news", "messages": 1, "bytes": 1000, "users": 1},
    ],
    "quantileExact": [{"op": "connect", "p95_ms": 7}, {"op": "publish", "p95_ms": 20}],
    "quantilesTDigestMerge": [
        {"op": "connect", "operations": 2, "errors": 1, "p95_ms": 7},
        {"op": "publish", "operations": 19, "errors": 15, "p95_ms": 20},
        {"op": "rpc", "operations": 1, "errors": 1, "p95_ms": 3},
    ],
    "AS connects": [{"connects": 2, "failed": 1}],
    "SELECT DISTINCT user": [{"user": "200"}, {"user": "201"}, {"user": "202"}],
    "AS users, uniqExact(client)": [{"users": 2, "connections": 3}],
    "count(DISTINCT user)": [{"users": 2}],
    "name, version, transport, uniq": [
        {"name": "js", "version": "1", "transport": "websocket", "connections": 2},
        {"name": "swift", "version": "1", "transport": "sse", "connections": 1},
    ],
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with EmbeddedProcess(tmp_path_factory.mktemp("docs")) as engine:
        for table, rows in ROWS.items():
            engine.call("write", f"batch-{table}", table, rows)
        yield engine


def test_the_pages_configuration_loads_without_a_fault_or_warning(tmp_path):
    (example,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    path = tmp_path / "cpro.yaml"
    path.write_text(example)
    loaded = load(str(path), {})
    assert loaded.warnings == []
    assert loaded.settings.clickhouse_analytics.export.publications.enabled


def test_every_query_has_a_known_answer():
    told = [[mark for mark in ANSWERS if mark in query] for query in QUERIES]
    assert sorted(marks[0] for marks in told) == sorted(ANSWERS)
    assert all(len(marks) == 1 for marks in told)


@pytest.mark.parametrize("mark", ANSWERS)
def test_a_query_of_the_page_gives_the_right_answer(engine, mark):
    query = question(mark)
    found = json.loads(engine.call("ask", query))
    if "DISTINCT user FROM" in query:
        found.sort(key=lambda row: row["user"])
    for row in found:
        row.pop("minute", None)
    assert found == ANSWERS[mark]


def test_the_page_names_every_column():
    for name, columns in [
        *((table.name, [column.name for column in table.columns]) for table in TABLES),
        *((rollup.name, list(rollup.columns)) for rollup in ROLLUPS),
    ]:
        (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", PAGE, re.MULTILINE)
        named = re.findall(r"`(\w+)`", row.rpartition(" | ")[2])
        assert [one for one in named if one != "source" or name == "publications"] == columns
