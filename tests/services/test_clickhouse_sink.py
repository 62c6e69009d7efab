"""The built-in sink against the real engine behind HTTP: whatever the transport does, a row is there exactly once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpro.analytics.clickhouse import ClickhouseSink, Node
from cpro.analytics.clickhouse_client import ClickhouseClient, open_server
from cpro.analytics.ddl import Plan, quote
from cpro.analytics.pins import Pins
from cpro.analytics.schema import OPERATIONS
from cpro.clock import unix_seconds
from cpro.config.clickhouse_dsn import parse_dsn
from cpro.config.model import TLS
from cpro.errors import SinkError, SinkRejectError, SinkSplitError
from tests.support.analytics import batch_of, operation
from tests.support.clickhouse import ClickhouseStandIn

ROWS = 1000
NOW = unix_seconds()  # the same rows under the same token, always


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory):
    with ClickhouseStandIn(tmp_path_factory.mktemp("clickhouse") / "engine") as server:
        yield server


@pytest.fixture
def database(request):
    return f"of {request.node.name}`'\\"


@pytest.fixture
def plan(database):
    return Plan(database)


def node(server, plan, *, skip_schema=False, answer_s=30):
    parsed, _ = parse_dsn(server.dsn)
    opener = partial(open_server, parsed, TLS(), answer_s=answer_s)
    return Node(ClickhouseClient(str(parsed), opener), plan, skip_schema=skip_schema)


@pytest.fixture
def sink(request, clickhouse, plan):
    """Short of patience where the server hangs."""
    sink = ClickhouseSink([node(clickhouse, plan, answer_s=2 if "hang" in request.node.name else 30)])
    yield sink
    clickhouse.fault()
    sink.close()


def batch(token="token", rows=ROWS, **values):
    return batch_of(OPERATIONS, [operation(number, time=NOW, **values) for number in range(rows)], token)


def stored(server, plan, table="operations"):
    return server.value(f"SELECT count() FROM {plan.name(table)}")


def write_until_taken(sink, batch, tries=5):
    """As the runner does; returns what was said before it was taken."""
    said = []
    for _ in range(tries):
        try:
            sink.write(batch)
            break
        except (SinkSplitError, SinkRejectError):
            raise
        except SinkError as error:
            said.append(error)
    assert len(said) < tries, said
    return said


def test_rows_are_stored_with_their_rollups(clickhouse, sink, plan):
    sink.open()
    sink.write(batch(error=111))
    assert stored(clickhouse, plan) == ROWS
    assert stored(clickhouse, plan, "operations_distributed") == ROWS
    for rollup, column in (("operations_per_minute", "errors"), ("errors_by_user", "count")):
        assert clickhouse.value(f"SELECT sum({column}) FROM {plan.name(rollup)}") == ROWS


@pytest.mark.parametrize(
    "faults",
    [
        ["500"],
        ["503", "429"],
        ["code:252"],
        ["code:999"],
        ["hang"],
        ["cut", "cut"],
        ["close", "close"],
        ["lie"],
        ["after:500"],
        ["after:close", "after:close"],
        ["after:hang"],
        ["after:lie"],
        ["after:close", "after:hang", "500", "after:500"],
    ],
    ids=lambda faults: "+".join(faults),
)
def test_a_batch_that_is_sent_again_is_there_once(clickhouse, sink, plan, faults):
    sink.open()
    clickhouse.fault(*faults)
    assert write_until_taken(sink, batch(error=111))
    assert stored(clickhouse, plan) == ROWS
    for rollup, column in (("operations_per_minute", "count"), ("errors_by_user", "count")):
        assert clickhouse.value(f"SELECT sum({column}) FROM {plan.name(rollup)}") == ROWS


QUICK_FAULTS = ["", "500", "code:252", "cut", "close", "lie", "after:500", "after:close", "after:lie", "after:code:252"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(QUICK_FAULTS), max_size=4), min_size=1, max_size=5))
def test_whatever_happens_in_whatever_order(clickhouse, faults_of):
    plan = Plan(f"of {uuid4()}")
    sink = ClickhouseSink([node(clickhouse, plan)])
    sink.open()
    for number, faults in enumerate(faults_of):
        clickhouse.fault(*faults)
        write_until_taken(sink, batch(f"batch-{number}", rows=10 + number, error=111), tries=10)
    clickhouse.fault()  # what was not met is not for the next test
    wanted = sum(10 + number for number in range(len(faults_of)))
    assert stored(clickhouse, plan) == wanted
    for rollup, column in (("operations_per_minute", "count"), ("errors_by_user", "count")):
        assert clickhouse.value(f"SELECT sum({column}) FROM {plan.name(rollup)}") == wanted
    sink.close()
    clickhouse.run(f"DROP DATABASE `{plan.database}` SYNC")


def test_batches_differ_by_their_ids_only(clickhouse, sink, plan):
    same = batch("a")
    for token in ("a", "b", "a", "b", "c"):
        sink.write(type(same)(token, same.table, same.rows, same.native))
    assert stored(clickhouse, plan) == 3 * ROWS


def test_no_room_asks_for_halves(clickhouse, sink):
    sink.open()
    clickhouse.fault("code:241", "413", "code:241")
    for _ in range(2):
        with pytest.raises(SinkSplitError):
            sink.write(batch(rows=ROWS + 1))
    with pytest.raises(SinkError) as of_a_small_one:
        sink.write(batch(rows=10))
    assert not isinstance(of_a_small_one.value, SinkSplitError)


def test_wrong_data_is_refused_only_when_it_is_so_twice(clickhouse, sink, plan):
    sink.open()
    clickhouse.fault("code:33", "code:33", "code:33")
    with pytest.raises(SinkError) as first:
        sink.write(batch())
    assert not isinstance(first.value, SinkRejectError)
    with pytest.raises(SinkRejectError):
        sink.write(batch())
    with pytest.raises(SinkError) as of_another:
        sink.write(batch("another"))
    assert not isinstance(of_another.value, SinkRejectError)
    sink.write(batch("another"))
    assert stored(clickhouse, plan) == ROWS


def test_tables_that_were_dropped_are_made_again(clickhouse, sink, plan):
    sink.write(batch("1"))
    clickhouse.run(f"DROP TABLE {plan.name('operations')} SYNC")
    sink.write(batch("2"))
    clickhouse.run(f"DROP DATABASE {plan.name('x').rsplit('.', 1)[0]} SYNC")
    sink.write(batch("3"))
    assert stored(clickhouse, plan) == ROWS


OLD = (
    "CREATE TABLE {} (client FixedString(36), user String, time DateTime) ENGINE = MergeTree "
    "PARTITION BY toYYYYMMDD(time) ORDER BY time COMMENT 'cpro 1, ttl 1 DAY'"
)
"""A table of an earlier cpro: columns, windows and a lifetime are to be changed."""


@pytest.mark.parametrize("before", [None, OLD], ids=["nothing", "old tables"])
def test_nodes_that_start_together_make_the_tables_once(clickhouse, plan, before):
    """And their views: a second one would count every row twice."""
    if before:
        clickhouse.run(f"CREATE DATABASE IF NOT EXISTS {quote(plan.database)}")
        clickhouse.run(before.format(plan.name("operations")))
    sinks = [ClickhouseSink([node(clickhouse, plan, answer_s=120)]) for _ in range(6)]
    together = threading.Barrier(len(sinks))

    def start(number: int) -> None:
        together.wait()
        for _ in range(5):  # as the runner tries again
            with suppress(SinkError):
                sinks[number].open()
                break
        write_until_taken(sinks[number], batch(f"of {number}", error=111))
        sinks[number].close()

    with ThreadPoolExecutor(len(sinks)) as threads:
        list(threads.map(start, range(len(sinks))))
    assert stored(clickhouse, plan) == len(sinks) * ROWS
    for rollup, column in (("operations_per_minute", "errors"), ("errors_by_user", "count")):
        assert clickhouse.value(f"SELECT sum({column}) FROM {plan.name(rollup)}") == len(sinks) * ROWS
    looking = node(clickhouse, plan)
    assert plan.missing(looking.client.find(plan.database)) == []
    looking.close()


def test_a_server_that_is_away_is_found_when_it_is_back(tmp_path, plan):
    server = ClickhouseStandIn(tmp_path / "engine")
    sink = ClickhouseSink([node(server, plan)])
    with pytest.raises(SinkError):
        sink.open()
    with pytest.raises(SinkError):
        sink.write(batch())
    with server:
        sink.write(batch())
        server.fault("after:close", "after:close")
        with pytest.raises(SinkError):
            sink.write(batch("killed before it answered"))
        server.kill()
        server.start()
        sink.write(batch("killed before it answered"))
        assert stored(server, plan) == 2 * ROWS
    sink.close()


def test_several_servers_share_the_load_and_keep_what_they_were_sent(tmp_path, plan):
    servers = [ClickhouseStandIn(tmp_path / name).start() for name in ("a", "b")]
    now_s = 0.0
    pins = tmp_path / "pins"
    try:
        sink = ClickhouseSink([node(server, plan) for server in servers], Pins(pins), now_s=lambda: now_s)
        sink.open()
        for number in range(6):
            sink.write(batch(f"shared-{number}", rows=10))
        assert [stored(server, plan) for server in servers] == [30, 30]

        for server in servers:
            server.fault("after:close", "after:close")
        with pytest.raises(SinkError):
            sink.write(batch("lost", rows=10))
        (owner,) = (server for server in servers if "lost" in server.tokens())
        (other,) = (server for server in servers if server is not owner)
        assert sink.pinned("lost") == owner.dsn
        other.fault()
        owner.kill()
        sink.close()

        sink = ClickhouseSink([node(server, plan) for server in servers], Pins(pins), now_s=lambda: now_s)
        with pytest.raises(SinkError):  # a restart doesn't change that only its owner knows
            sink.write(batch("lost", rows=10))
        for number in range(3):
            sink.write(batch(f"meanwhile-{number}", rows=10))
        assert stored(other, plan) == 60
        now_s = 60.0
        owner.start()
        sink.write(batch("lost", rows=10))
        assert stored(owner, plan) == 40
        assert stored(other, plan) == 60
        sink.close()
    finally:
        for server in servers:
            server.stop()


def test_what_no_server_was_sent_goes_to_any(tmp_path, plan):
    servers = [ClickhouseStandIn(tmp_path / name) for name in ("a", "b")]
    now_s = 0.0
    sink = ClickhouseSink([node(server, plan) for server in servers], Pins(tmp_path / "pins"), now_s=lambda: now_s)
    try:
        for server in servers:
            server.start()
        sink.open()
        for server in servers:
            server.kill()
        for _ in range(2):
            with pytest.raises(SinkError):
                sink.write(batch("never sent", rows=10))
        assert sink.pinned("never sent") is None
        servers[1].start()
        sink.write(batch("never sent", rows=10))
        assert stored(servers[1], plan) == 10
        sink.close()
    finally:
        for server in servers:
            server.stop()


def test_a_server_that_turns_us_away_has_nothing(clickhouse, tmp_path, plan):
    sink = ClickhouseSink([node(clickhouse, plan)], Pins(tmp_path / "pins"))
    sink.open()
    clickhouse.fault("code:516")
    with pytest.raises(SinkError):
        sink.write(batch())
    assert sink.pinned("token") is None
    sink.close()


def test_skipping_the_schema_names_every_statement(clickhouse, plan):
    sink = ClickhouseSink([node(clickhouse, plan, skip_schema=True)])
    with pytest.raises(SinkError) as error:
        sink.open()
    statements = [line.removesuffix(";") for line in str(error.value).splitlines()[1:]]
    assert statements == plan.missing(None)
    for statement in statements:
        clickhouse.run(statement)
    sink.open()
    sink.write(batch())
    assert stored(clickhouse, plan) == ROWS
    sink.close()


def test_without_a_ping_nothing_is_asked_at_start(tmp_path, plan):
    ClickhouseSink([node(ClickhouseStandIn(tmp_path), plan)], skip_ping=True).open()
