"""Blocks of `_fast.columns` as the real engine reads them: what is read back is what was recorded."""

import json
from operator import itemgetter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpro.analytics.schema import CONNECTIONS, OPERATIONS, TABLES
from tests.support.analytics import batch_of, operation, row_of, rows_of
from tests.support.embedded import EmbeddedProcess


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with EmbeddedProcess(tmp_path_factory.mktemp("engine")) as engine:
        engine.call("open")
        for table in TABLES:
            columns = ", ".join(f"`{column.name}` {column.type}" for column in table.columns)
            engine.call("run", f"CREATE TABLE centrifugo.echo_{table.name} ({columns}) ENGINE = Memory")
        yield engine


def echo(engine, table, recorded):
    """The rows as they are read back from the engine."""
    name = f"centrifugo.echo_{table.name}"
    engine.call("run", f"TRUNCATE TABLE {name}")
    assert engine.call("insert", name, batch_of(table, recorded).native) == len(recorded)
    columns = ", ".join(
        f"toUInt32({column.name}) AS {column.name}" if column.type == "DateTime" else column.name
        for column in table.columns
    )
    found = json.loads(engine.call("ask", f"SELECT {columns} FROM {name}"))
    return [itemgetter(*(column.name for column in table.columns))(row) for row in found]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_read_back_is_what_was_recorded(engine, table, data):
    recorded = data.draw(st.lists(rows_of(table), min_size=1, max_size=10))
    assert echo(engine, table, recorded) == recorded


@pytest.mark.parametrize("words", [1, 256, 257, 65_536, 65_537])
def test_words_are_read_back_however_many(engine, words):
    recorded = [operation(number, op=f"op-{number * 7919 % words}") for number in range(words)]
    name = "centrifugo.echo_operations"
    engine.call("run", f"TRUNCATE TABLE {name}")
    engine.call("insert", name, batch_of(OPERATIONS, recorded).native)
    ((found, wrong),) = engine.call(
        "run",
        f"SELECT uniqExact(op), countIf(op != concat('op-', toString(rowNumberInAllBlocks() * 7919 % {words}))) "
        f"FROM {name} SETTINGS max_threads = 1",
    )
    assert (found, wrong) == (words, 0)


def test_a_megabyte_of_text_is_read_back(engine):
    text = "é" * (1 << 19)
    recorded = [
        row_of(CONNECTIONS, client=text, user=text, name=text, headers={text: [text, ""]}, labels={"": text}),
        row_of(CONNECTIONS),
    ]
    assert echo(engine, CONNECTIONS, recorded) == recorded
