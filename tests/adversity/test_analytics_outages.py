"""ClickHouse misbehaving while traffic goes on, and long backlogs: every row once, memory flat, serving untouched."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from cpro.sinktesting import RowFolder
from tests.support.acknowledged import Publishers, faults
from tests.support.analytics_service import analytics, ask, drained, processes, state_of
from tests.support.clickhouse import ClickhouseStandIn
from tests.support.packages import with_packages, write_plugin
from tests.support.processes import eventually
from tests.support.service import Service, event, exchange

ALLOW = {"workers": 2, "proxy": {"without_upstream": "allow"}}


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[ClickhouseStandIn]:
    with ClickhouseStandIn(tmp_path / "engine") as server:
        yield server


@contextmanager
def serving(folder: Path, server: ClickhouseStandIn, **keywords: object) -> Iterator[Service]:
    with Service(folder / "cpro", {**ALLOW, **analytics(clickhouse_dsn=[server.dsn])}, **keywords) as cpro:
        yield cpro


def stored(server: ClickhouseStandIn) -> dict[str, int]:
    rows = server.query("SELECT user, count() AS n FROM centrifugo.operations GROUP BY user")
    return {row["user"]: int(row["n"]) for row in rows}


@pytest.mark.timeout(120)
def test_whatever_the_server_does_to_inserts_each_row_is_stored_once(tmp_path, clickhouse):
    each = ("500", "503", "429", "close", "cut", "lie", "after:close", "after:500", "after:lie", "code:252", "code:202")
    with serving(tmp_path, clickhouse) as cpro, Publishers(lambda: cpro.proxy, 4, 0.002) as load:
        assert eventually(lambda: len(clickhouse.tokens()) > 2)
        for fault in each:
            armed = len(clickhouse.tokens())
            clickhouse.fault(fault)
            assert eventually(lambda armed=armed: len(clickhouse.tokens()) > armed + 1), fault
        load.__exit__()
        assert load.unknown == []
        assert eventually(lambda: drained(cpro))
        assert faults(load, stored(clickhouse)) == {}
        assert state_of(cpro)["clickhouse"]["errors"] >= len(each) - 3


@pytest.mark.timeout(120)
def test_a_server_that_is_killed_and_comes_back_misses_nothing(tmp_path, clickhouse):
    with serving(tmp_path, clickhouse) as cpro, Publishers(lambda: cpro.proxy, 4, 0.002) as load:
        for _ in range(3):
            assert eventually(lambda: len(clickhouse.tokens()) > 2)
            clickhouse.kill()
            time.sleep(random.uniform(0.2, 1.0))
            clickhouse.start()
        load.__exit__()
        assert load.unknown == []
        assert eventually(lambda: drained(cpro), 60)
        assert faults(load, stored(clickhouse)) == {}


@pytest.mark.timeout(180)
def test_answers_that_are_lost_while_the_analyst_is_killed_double_nothing(tmp_path, clickhouse):
    with serving(tmp_path, clickhouse) as cpro, Publishers(lambda: cpro.proxy, 4, 0.002) as load:
        for _ in range(6):
            assert eventually(lambda: processes(cpro, "analyst"))
            assert eventually(lambda: len(clickhouse.tokens()) > 2)
            clickhouse.fault("after:close", "", "after:500", "", "after:lie", "after:close")
            time.sleep(random.uniform(0.2, 1.0))
            for pid in processes(cpro, "analyst"):
                os.kill(pid, signal.SIGKILL)
        load.__exit__()
        clickhouse.fault()
        assert load.unknown == []
        assert eventually(lambda: drained(cpro), 60)
        assert faults(load, stored(clickhouse)) == {}


@pytest.mark.timeout(120)
def test_what_waited_for_a_server_survives_a_restart_of_cpro(tmp_path, clickhouse):
    clickhouse.kill()
    with serving(tmp_path, clickhouse) as cpro, Publishers(lambda: cpro.proxy, 4, 0.001) as load:
        load.go_on(1000)
        cpro.kill_all()
        cpro.start()
        load.go_on(1000)
        load.__exit__()
        assert cpro.stop() == 0
        clickhouse.start()
        cpro.start()
        assert eventually(lambda: drained(cpro), 60)
        assert faults(load, stored(clickhouse)) == {}


@pytest.mark.timeout(240)
def test_what_a_node_that_is_gone_has_left_goes_out_from_a_copy_of_its_folder(tmp_path, clickhouse):
    """As docs/analytics.md says; some of it was sent before, and the answer to that was lost."""
    with serving(tmp_path, clickhouse) as gone, Publishers(lambda: gone.proxy, 4, 0.002) as load:
        assert eventually(lambda: len(clickhouse.tokens()) > 2)
        clickhouse.fault(*["after:500"] * 1000)
        load.go_on(200)
        gone.kill_all()
    clickhouse.fault()
    copy = tmp_path / "another" / "copy"
    shutil.copytree(gone.settings["data_dir"], copy, ignore=shutil.ignore_patterns("*.sock"))
    settings = {**gone.settings, "data_dir": str(copy)}
    with Service(tmp_path / "another", settings) as cpro:
        assert eventually(lambda: drained(cpro), 60)
    assert faults(load, stored(clickhouse)) == {}


def backlog(cpro: Service, rows: int) -> None:
    """A journal that has waited for long: of a worker that is gone."""
    worker = RowFolder(Path(cpro.settings["data_dir"]) / "journal", 77, segment_bytes=32 << 20)
    for number in range(rows):
        client = f"{number:08x}-0000-4000-8000-000000000000"
        values = {
            "client": client,
            "user": f"user {number % 50_000}",
            "op": "publish",
            "channel": f"chat:{number % 1000}",
        }
        worker.append("operations", duration=number, namespace="chat", node="n", time=int(time.time()), **values)
    worker.close()


COUNTED = 3_000_000
MOST_MB = {"server": 200, "embedded": 600}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("where", ["server", "embedded"])
def test_a_long_backlog_goes_out_in_flat_memory(tmp_path, where):
    ship_backlog(tmp_path, where, 1_000_000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("where", ["server", "embedded"])
def test_an_hours_worth_of_rows_goes_out_in_flat_memory(tmp_path, where):
    ship_backlog(tmp_path, where, 3600 * 5000)


def ship_backlog(folder: Path, where: str, rows: int) -> None:
    server = ClickhouseStandIn(folder / "engine")
    dsn = [] if where == "embedded" else [server.dsn]
    cpro = Service(folder / "cpro", {**ALLOW, **analytics(clickhouse_dsn=dsn)})
    backlog(cpro, rows)
    if dsn:
        server.start()
    try:
        with cpro:
            (analyst,) = processes(cpro, "analyst")
            most = 0

            def is_done() -> bool:
                nonlocal most
                most = max(most, own_bytes(analyst))
                sample = 'cpro_sink_rows_total{sink="clickhouse",table="operations"}'
                return cpro.metric(sample) >= rows

            assert eventually(is_done, 60.0 + rows / 10_000)
            assert most < MOST_MB[where] << 20, f"{most >> 20} MiB"
            assert ask(cpro, "SELECT count() n FROM operations") == [{"n": rows}]
            for first in range(0, rows, COUNTED):  # as many different ones as a query has the memory for
                last = min(first + COUNTED, rows) - 1
                sql = f"SELECT uniqExact(duration) u FROM operations WHERE duration BETWEEN {first} AND {last}"
                assert ask(cpro, sql) == [{"u": last - first + 1}]
    finally:
        server.stop()


def own_bytes(pid: int) -> int:
    """Resident memory without what is mapped from files: pages of the journal are the kernel's to take back."""
    with open(f"/proc/{pid}/status") as file:
        sizes = dict(line.split(":", 1) for line in file)
    return sum(int(sizes[name].split()[0]) << 10 for name in ("RssAnon", "RssShmem"))


STUCK = """
    import os, time
    from cpro.plugins import hookimpl

    class Sink:
        def open(self):
            pass

        def write(self, batch):
            while not os.path.exists(self.gate):
                time.sleep(0.05)
            with open(self.out, "a") as file:
                file.write("".join(f"{user}\\n" for user in batch.columns["user"]))

        def close(self):
            pass

    @hookimpl
    def cpro_sinks(config):
        sink = Sink()
        sink.gate, sink.out = config.options["gate"], config.options["out"]
        return sink
"""


def has_stored(cpro, rows: int) -> bool:
    """Whether ClickHouse has these many operations."""
    return cpro.metric('cpro_sink_rows_total{sink="clickhouse",table="operations"}') == rows


@pytest.mark.timeout(120)
def test_a_plugin_that_is_stuck_when_the_journal_is_full_loses_only_its_own_rows(tmp_path):
    write_plugin(tmp_path / "packages", "stuck", STUCK)
    out, gate = tmp_path / "out", tmp_path / "gate"
    settings = {
        **ALLOW,
        "workers": 1,
        **analytics(max_journal_size="64MiB"),
        "plugins": {"stuck": {"gate": str(gate), "out": str(out)}},
    }
    users = 0
    with Service(tmp_path / "cpro", settings, env=with_packages(tmp_path / "packages")) as cpro:
        connection = cpro.connect()
        channel = "x" * 60_000
        while cpro.metric('cpro_sink_dropped_rows_total{sink="stuck"}') == 0:
            for _ in range(100):
                body = event(user=f"u{users}", channel=channel, data={})
                assert exchange(connection, "/centrifugo/publish", body) == (200, {"result": {}})
                users += 1
            assert users < 10_000, "nothing was given up"
            assert eventually(partial(has_stored, cpro, users), 30), "the journal is full for no other reason"
        assert cpro.metric('cpro_journal_dropped_rows_total{table="operations"}') == 0
        assert cpro.metric('cpro_sink_dropped_rows_total{sink="clickhouse"}') == 0
        gate.touch()
        lost = 'cpro_sink_dropped_rows_total{sink="stuck"}'
        assert eventually(lambda: len(out.read_text().split()) + cpro.metric(lost) == users if out.exists() else 0, 30)
        written = out.read_text().split()
    assert len(set(written)) == len(written)
    assert {"u0", f"u{users - 1}"} <= set(written)
