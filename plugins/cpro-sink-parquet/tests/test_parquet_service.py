"""The installed plugin in a real cpro: what clients did is in files, once, whoever is killed."""

import os
import signal
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from tests.support.analytics_service import analytics, processes
from tests.support.packages import install
from tests.support.processes import eventually
from tests.support.service import Service, event, exchange

PACKAGE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install(PACKAGE, tmp_path_factory.mktemp("parquet"))


def test_what_was_done_is_in_files_once(packages, tmp_path):
    target = tmp_path / "parquet"
    options = {"plugins": {"parquet": {"target": str(target), "flush_interval": "1s"}}}
    settings = {"proxy": {"without_upstream": "allow"}, **analytics(), **options}
    with Service(tmp_path / "cpro", settings, env=packages) as cpro:
        connection = cpro.connect()
        for number in range(300):
            exchange(connection, "/centrifugo/publish", event(user=f"u{number}", channel="chat:1", data={}))
            if number == 150:
                os.kill(processes(cpro, "analyst")[0], signal.SIGKILL)
        assert eventually(lambda: cpro.metric('cpro_sink_rows_total{sink="parquet",table="operations"}') >= 1, 20.0)
    rows = ds.dataset(target / "operations", partitioning="hive").to_table(["user", "op", "channel"]).to_pylist()
    assert sorted(row["user"] for row in rows) == sorted(f"u{number}" for number in range(300))
    assert {(row["op"], row["channel"]) for row in rows} == {("publish", "chat:1")}


def test_a_target_that_nothing_can_write_to_stops_the_start(packages, tmp_path):
    cpro = Service(tmp_path, {**analytics(), "plugins": {"parquet": {"target": "nosuch://x"}}}, env=packages)
    with pytest.raises(AssertionError, match=r"plugin parquet: plugins\.parquet\.target: "):
        cpro.start()
