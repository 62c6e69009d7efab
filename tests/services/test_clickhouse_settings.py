"""Sink and reader as the settings want them: servers, TLS, databases; a real server where one is named."""

import json
import shutil
from uuid import uuid4

import pytest

from cpro.analytics.clickhouse import plan_of, sink_of
from cpro.analytics.reads import reader_of
from cpro.analytics.schema import OPERATIONS, TABLES
from cpro.clock import unix_seconds
from cpro.config.model import TLS, ClickhouseAnalytics, Settings
from cpro.errors import SinkError, StoreError
from tests.support.analytics import batch_of, operation
from tests.support.clickhouse import REAL, ClickhouseStandIn
from tests.support.redis import certificates

BATCH = batch_of(OPERATIONS, [operation(number, time=unix_seconds(), error=111) for number in range(100)], "token")


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory):
    with ClickhouseStandIn(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


def settings_of(tmp_path, *dsn, **block):
    return Settings(data_dir=str(tmp_path), clickhouse_analytics=ClickhouseAnalytics(clickhouse_dsn=dsn, **block))


def stored(reader, table="operations"):
    (row,) = json.loads(reader.ask(f"SELECT count() AS rows FROM {table}", "json"))
    return row["rows"]


def test_rows_are_read_where_they_were_written(clickhouse, tmp_path):
    settings = settings_of(tmp_path, clickhouse.dsn, clickhouse_database="of `settings'")
    sink, reader = sink_of(settings), reader_of(settings)
    sink.open()
    for _ in range(2):
        sink.write(BATCH)
    assert stored(reader) == stored(reader, "operations_distributed") == 100
    assert reader.ask("SELECT uniqExact(user) AS users FROM errors_by_user;", "csv") == b'"users"\n100\n'
    assert "100" in reader.ask("SELECT count() FROM operations").decode()
    with pytest.raises(StoreError, match="readonly"):
        reader.ask("SELECT * FROM file('/etc/passwd', 'LineAsString')")
    with pytest.raises(StoreError, match="not_there"):
        reader.ask("SELECT * FROM not_there")
    assert stored(reader) == 100
    sink.close()
    reader.close()


def test_a_reader_asks_another_server_where_one_is_away(clickhouse, tmp_path):
    away = ClickhouseStandIn(tmp_path / "away")
    settings = settings_of(tmp_path, away.dsn, clickhouse.dsn, clickhouse_database="of_two")
    clickhouse.run("CREATE DATABASE IF NOT EXISTS of_two")
    reader = reader_of(settings)
    assert reader.ask("SELECT 1 AS one", "csv") == b'"one"\n1\n'
    reader.close()
    with pytest.raises(StoreError, match="away"):
        reader_of(settings_of(tmp_path, away.dsn)).ask("SELECT 1")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
def test_tls_goes_by_the_tls_object(tmp_path):
    certs = certificates(tmp_path / "certs")
    block = {"enabled": True, "cert_pem": certs["client_cert"], "key_pem": certs["client_key"]}
    with ClickhouseStandIn(tmp_path / "engine", certs) as server:
        for tls, is_let_in in (
            (TLS(**block, server_ca_pem=certs["ca"]), True),
            (TLS(**block, server_ca_pem=certs["ca"], server_name="redis.test"), True),
            (TLS(**block, server_ca_pem=certs["ca"], server_name="another.test"), False),
            (TLS(**block, insecure_skip_verify=True), True),
            (TLS(**block), False),
            (TLS(enabled=True, server_ca_pem=certs["ca"]), False),
        ):
            settings = settings_of(tmp_path, server.dsn, tls=tls)
            sink = sink_of(settings)
            if is_let_in:
                sink.open()
                sink.write(BATCH)
                assert stored(reader_of(settings)) == 100
            else:
                with pytest.raises(SinkError):
                    sink.open()
            sink.close()


@pytest.mark.skipif(not REAL, reason="CPRO_TEST_CLICKHOUSE names no server")
@pytest.mark.parametrize("cluster", ["", "default"])
def test_a_real_server_takes_everything(tmp_path, cluster):
    database = f"cpro_test_{uuid4().hex}"
    settings = settings_of(tmp_path, REAL, clickhouse_database=database, clickhouse_cluster=cluster)
    sink, reader, plan = sink_of(settings), reader_of(settings), plan_of(settings)
    client = sink._nodes[0].client
    try:
        sink.open()
        assert plan.missing(client.find(database)) == []
        for _ in range(3):
            sink.write(BATCH)
        assert stored(reader) == 100
        assert sum(stored(reader, table.name) for table in TABLES) == 100
        (row,) = json.loads(reader.ask("SELECT sum(count) AS n FROM errors_by_user", "json"))
        assert row["n"] == 100
    finally:
        client.run(f"DROP DATABASE IF EXISTS {plan.name('x').rpartition('.')[0]} SYNC")
        sink.close()
        reader.close()
