"""The embedded engine as a store: it survives kills and power cuts with every row once, and grows with the schema."""

import json
import shutil

import pytest

from cpro.analytics.ddl import Plan
from cpro.analytics.schema import CONNECTIONS
from cpro.clock import unix_seconds
from cpro.errors import SinkError, StoreError
from tests.support.analytics import operation, row_of
from tests.support.embedded import EmbeddedProcess

NOW = unix_seconds()


@pytest.fixture
def engine(tmp_path):
    with EmbeddedProcess(tmp_path / "data") as engine:
        yield engine


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with EmbeddedProcess(tmp_path_factory.mktemp("shared")) as engine:
        engine.call("open")
        engine.call("write", "1", 1, operations(100))
        yield engine


def operations(count, **values):
    return [operation(number, time=NOW, **values) for number in range(count)]


def count(engine, table="operations", what="count()"):
    (row,) = json.loads(engine.call("ask", f"SELECT {what} AS found FROM {table}"))
    return row["found"]


def again(engine):
    engine.kill()
    return engine.start()


def test_a_batch_is_there_once_through_kills_and_restarts(engine):
    for _ in range(2):
        engine.call("write", "a", 1, operations(100, error=111))
        again(engine)
    engine.call("write", "a", 1, operations(100, error=111))
    engine.stop()
    engine.start()
    engine.call("write", "a", 1, operations(100, error=111))
    engine.call("write", "b", 1, operations(10))
    assert count(engine) == 110
    assert count(engine, "operations_per_minute", "sum(count)") == 110
    assert count(engine, "errors_by_user", "sum(count)") == 100


def test_after_a_power_cut_the_rows_are_looked_for_not_their_token(engine):
    engine.call("write", "a", 1, operations(100, labels={"k": "v"}))
    engine.call("write", "b", 2, [row_of(CONNECTIONS, user="u", headers={"h": ["1", "2"]}, time=NOW)])
    engine.kill()
    logs = list(engine.folder.glob("store/*/*/deduplication_logs"))
    assert logs
    for log in logs:  # never synced by the engine
        shutil.rmtree(log)
    (engine.folder / "cpro-boot").write_text("of another boot")
    engine.start()
    engine.call("ask", "SELECT 1")  # a reader's opening changes nothing
    again(engine)
    engine.call("open")
    again(engine)  # nor does a crash before the batches were sent again
    engine.call("write", "a", 1, operations(100, labels={"k": "v"}))
    engine.call("write", "b", 2, [row_of(CONNECTIONS, user="u", headers={"h": ["1", "2"]}, time=NOW)])
    engine.call("write", "c", 1, operations(50, user="another"))
    assert count(engine) == 150
    assert count(engine, "connections") == 1
    assert engine.call("log").count("batch is there already") == 2
    for number in range(20):
        engine.call("write", f"later-{number}", 1, operations(1, duration=number))
    assert count(engine) == 170
    assert (engine.folder / "cpro-boot").read_text() != "of another boot", "tokens are trusted again"


def test_after_a_clean_end_nothing_is_doubted(engine):
    engine.call("write", "a", 1, operations(1))
    assert (engine.folder / "cpro-boot").exists()
    engine.stop()
    assert not (engine.folder / "cpro-boot").exists()


def test_blocks_go_by_no_file_that_a_kill_would_leave(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with EmbeddedProcess(tmp_path / "data") as engine:
        engine.call("write", "a", 1, operations(100))
        changed_ns = (tmp_path / "tmp").stat().st_mtime_ns
        for number in range(3):
            engine.call("write", f"b{number}", 1, operations(10, duration=number))
        assert (tmp_path / "tmp").stat().st_mtime_ns == changed_ns
        assert count(engine) == 130


def test_a_torn_statement_is_put_back(engine):
    engine.call("write", "a", 1, operations(100))
    engine.kill()
    torn = list(engine.folder.glob("store/*/*/operations.sql"))
    assert torn
    for path in torn:
        path.write_bytes(b"")
    engine.start()
    engine.call("open")
    assert count(engine) == 100
    assert "torn statement of a table is put back" in engine.call("log")


def test_a_torn_statement_without_a_copy_is_set_aside(engine):
    engine.call("write", "a", 1, operations(100))
    engine.kill()
    shutil.rmtree(engine.folder / "cpro-statements")
    for path in engine.folder.glob("store/*/*/operations.sql"):
        path.write_bytes(b"")
    engine.start()
    engine.call("write", "b", 1, operations(10))
    assert count(engine) == 10
    assert any("set aside" in line for line in engine.call("log"))
    assert list(engine.folder.glob("cpro-torn/store/*/*/operations.sql"))


def test_old_tables_grow_to_what_is_wanted(engine):
    """A table as a first version might have left it: no window, fewer columns, no rollups, and rows in it."""
    with pytest.raises(RuntimeError):
        engine.call("run", "CREATE TABLE centrifugo.operations (x Int8) ENGINE = Memory")  # no database yet
    engine.call("run", "CREATE DATABASE centrifugo")
    engine.call(
        "run",
        "CREATE TABLE centrifugo.operations (client String, user String, op LowCardinality(String), error UInt32, "
        "time DateTime) ENGINE = MergeTree ORDER BY time",
    )
    engine.call("run", "CREATE VIEW centrifugo.operations_distributed AS SELECT * FROM centrifugo.operations")
    engine.call("run", f"INSERT INTO centrifugo.operations VALUES ('c', 'old', 'rpc', 0, {NOW})")
    engine.call("open")
    for _ in range(2):
        engine.call("write", "a", 1, operations(10, error=111))
    assert count(engine, "operations_distributed") == 11
    assert count(engine, "operations_distributed", "uniqExact(channel)") == 11
    assert count(engine, "errors_by_user", "sum(count)") == 10
    again(engine).call("open")
    assert engine.call("log") == [], "nothing is left to be done"


def test_a_second_process_is_told_that_the_folder_is_taken(shared):
    with EmbeddedProcess(shared.data_dir) as second, pytest.raises(SinkError, match="Unable to open"):
        second.call("open")


def test_the_parser_takes_every_statement_of_a_cluster(shared):
    for plan in (Plan("centrifugo", "all"), Plan("a'b`c\\", "d'e`f\\")):
        for statement in plan.missing(None):
            quoted = statement.replace("\\", "\\\\").replace("'", "\\'")
            ((formatted,),) = shared.call("run", f"SELECT formatQuery('{quoted}')")
            assert "ON CLUSTER" in formatted


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("csv", b'"op","n"\n"publish",100\n'),
        ("json", b'[\n{"op":"publish","n":100}\n]\n'),
    ],
)
def test_answers_come_as_they_are_asked_for(shared, kind, answer):
    assert shared.call("ask", "SELECT op, count() AS n FROM operations GROUP BY op;", kind) == answer


def test_answers_are_tables_for_people(shared):
    table = shared.call("ask", "SELECT op, count() AS n FROM operations GROUP BY op -- all of them", "table").decode()
    assert "publish" in table
    assert "100" in table
    assert "\x1b" not in table


@pytest.mark.parametrize(
    "question",
    [
        "INSERT INTO operations (user) VALUES ('x')",
        "DROP TABLE operations",
        "ALTER TABLE operations DELETE WHERE 1",
        "CREATE TEMPORARY TABLE x (y Int8)",
        "SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "SET readonly = 0",
        "USE default",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1; DROP TABLE operations",
        "SELECT 1 INTO OUTFILE '/tmp/cpro-out'",
        "SELECT 1 into/**/outfile '/tmp/cpro-out'",
        "SELECT ';' ; SELECT 2",
        "SELECT $$ ' $$ ; SELECT 2 -- '",
        "SELECT $x$ ' $x$, 1",
        "SELECT \u2018'\u2019 ; SELECT 2 --'",
        'SELECT \u201c"\u201d ; SELECT 2 --"',
        "SELECT 1\u2028",
        "SELECT 'open",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')",
        "SELECT",
        "",
        "-- nothing",
        ";",
    ],
)
def test_only_questions_are_answered(shared, question):
    with pytest.raises(StoreError):
        shared.call("ask", question)
    assert count(shared) == 100


@pytest.mark.parametrize(
    "question",
    [
        "SELECT ';', 'into outfile', `op` FROM operations LIMIT 1;;",
        "WITH 1 AS x SELECT x -- ; into outfile",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SHOW TABLES",
        "DESCRIBE operations",
        "EXPLAIN SELECT 1",
        "EXISTS operations",
        "/* ; */ SELECT 'a\\';b', 'it''s; fine'",
        "SELECT '$x$ ; \u2018', 1.5e3 % 2, map('a', 1)['a'], [1, 2][1] :: UInt8",
    ],
)
def test_every_kind_of_question_is_answered(shared, question):
    assert shared.call("ask", question, "csv")


def test_an_answer_has_a_bound_and_what_failed_does_not_leak_into_the_next(shared):
    with pytest.raises(StoreError, match="Limit for result exceeded"):
        shared.call("ask", "SELECT toString(number) || repeat('a', 1000) FROM numbers(200000)", "csv")
    assert shared.call("ask", "SELECT 1 AS x", "csv") == b'"x"\n1\n'


def test_questions_before_the_first_row_are_told_why(engine):
    with pytest.raises(StoreError, match="centrifugo"):
        engine.call("ask", "SELECT 1")
    engine.call("open")
    assert count(engine) == 0
