"""Contract 6 from outside: what was done is in ClickHouse seconds later, with commands to ask, and sinks of plugins."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support.analytics_service import analytics, ask, drained, processes, run_command, state_of
from tests.support.clickhouse import ClickhouseStandIn
from tests.support.packages import with_packages, write_plugin
from tests.support.processes import eventually, log_so_far
from tests.support.redis import free_port
from tests.support.rows import TABLES
from tests.support.service import Service, event, exchange

ALLOW = {"proxy": {"without_upstream": "allow"}}

FILES = """
    import json, os
    from cpro.plugins import hookimpl

    class Sink:
        flush_interval_s = 0.1

        def __init__(self, folder):
            self.folder = folder

        def open(self):
            os.makedirs(self.folder, exist_ok=True)

        def write(self, batch):
            users = batch.columns["user"]
            with open(f"{self.folder}/.{batch.id}", "w") as file:
                json.dump([batch.table.name, users], file)
            os.rename(f"{self.folder}/.{batch.id}", f"{self.folder}/{batch.id}.json")

        def close(self):
            open(f"{self.folder}/closed", "w").close()

    @hookimpl
    def cpro_sinks(config):
        return Sink(config.options["folder"])
"""

HOSTILE = """
    import time
    from cpro.plugins import hookimpl

    class Sink:
        def __init__(self, name, act):
            self.name = name
            self.act = act

        def open(self):
            pass

        def write(self, batch):
            self.act()

        def close(self):
            pass

    def hang():
        time.sleep(3600)

    def slow():
        time.sleep(2)

    def fail():
        raise ValueError("bug of the plugin")

    def leave():
        raise SystemExit(5)

    @hookimpl
    def cpro_sinks(config):
        return [Sink(act.__name__, act) for act in (hang, slow, fail, leave)]
"""


def publish(cpro: Service, count: int, first: int = 0) -> None:
    connection = cpro.connect()
    for number in range(first, first + count):
        body = event(user=f"u{number}", channel="chat:1", data={})
        assert exchange(connection, "/centrifugo/publish", body) == (200, {"result": {}})


def count(cpro: Service) -> int:
    (row,) = ask(cpro, "SELECT count() n FROM operations")
    return row["n"]


def test_what_was_done_can_be_asked_for_seconds_later(service):
    cpro = service({**ALLOW, **analytics(flush_interval="1s")})
    publish(cpro, 100)
    assert eventually(lambda: count(cpro) == 100)
    (row,) = ask(cpro, "SELECT op, channel, namespace, error, uniq(user) users FROM operations GROUP BY ALL")
    assert row == {"op": "publish", "channel": "chat:1", "namespace": "chat", "error": 0, "users": 100}
    (by_name,) = ask(cpro, "SELECT count() n FROM centrifugo.operations_distributed")
    assert by_name["n"] == 100
    assert cpro.metric('cpro_sink_rows_total{sink="clickhouse",table="operations"}') == 100
    assert cpro.metric('cpro_sink_lag_seconds{sink="clickhouse"}') < 10


def test_the_first_question_after_the_first_start_is_answered(service):
    cpro = service(analytics(*TABLES))
    assert ask(cpro, "SELECT count() n FROM operations") == [{"n": 0}]
    assert {row["name"] for row in ask(cpro, "SHOW TABLES")} > {*TABLES, "operations_per_minute", "errors_by_user"}


def test_answers_are_tables_csv_or_json(service):
    cpro = service(analytics())
    sql = "SELECT 1 AS a, 'x,y' AS b"
    table = run_command(cpro, "query", sql)
    assert "│" in table.stdout
    assert run_command(cpro, "query", "--format", "csv", sql).stdout == '"a","b"\n1,"x,y"\n'
    assert json.loads(run_command(cpro, "query", "--format", "json", sql).stdout) == [{"a": 1, "b": "x,y"}]


@pytest.mark.parametrize("is_running", [True, False])
def test_a_bad_question_is_one_line_and_exit_1(tmp_path, is_running):
    with Service(tmp_path, analytics()) as cpro:
        assert count(cpro) == 0
        if not is_running:
            cpro.stop()
        for sql in ("SELECT nonsense", "SELEC", "DROP TABLE operations", "INSERT INTO operations (user) VALUES ('x')"):
            done = run_command(cpro, "query", sql)
            assert (done.returncode, done.stdout) == (1, "")
            assert "Traceback" not in done.stderr
            assert done.stderr.startswith("cpro: ")
        assert ask(cpro, "SELECT count() n FROM operations") == [{"n": 0}]


def test_without_a_running_cpro_the_engine_is_asked_directly(tmp_path):
    with Service(tmp_path, {**ALLOW, **analytics()}) as cpro:
        nothing = run_command(cpro, "query", "SELECT 1 FROM nosuch")
        assert nothing.returncode == 1
        publish(cpro, 10)
    assert count(cpro) == 10  # stopping has sent what was left
    state = run_command(cpro, "analytics", "status")
    assert (state.returncode, "nothing ships them now" in state.stdout) == (0, True)
    with cpro:
        publish(cpro, 10, 10)
        assert eventually(lambda: count(cpro) == 20)


def test_before_there_was_any_analytics_that_is_said(tmp_path):
    cpro = Service(tmp_path)
    done = run_command(cpro, "query", "SELECT 1")
    assert done.returncode == 1
    assert "there is no ClickHouse in" in done.stderr
    assert run_command(cpro, "analytics", "status").returncode == 0


def test_a_clickhouse_that_is_away_keeps_nobody_from_starting(tmp_path):
    port = free_port()
    with Service(tmp_path / "cpro", {**ALLOW, **analytics(clickhouse_dsn=[f"http://127.0.0.1:{port}"])}) as cpro:
        publish(cpro, 50)
        assert eventually(lambda: state_of(cpro)["clickhouse"]["errors"] > 0)
        failing = run_command(cpro, "analytics", "status")
        assert failing.returncode == 1
        assert "failing: " in failing.stdout
        assert state_of(cpro)["clickhouse"]["waiting_rows"] == 50
        assert run_command(cpro, "query", "SELECT 1").returncode == 1
        server = ClickhouseStandIn(tmp_path / "engine")
        server.port = port
        with server:
            assert eventually(lambda: drained(cpro))
            assert ask(cpro, "SELECT count() n, uniq(user) u FROM operations") == [{"n": 50, "u": 50}]
            assert run_command(cpro, "analytics", "status").returncode == 0


def test_flush_settings_are_reloaded_and_others_wait_for_a_restart(tmp_path):
    with Service(tmp_path, {**ALLOW, **analytics(flush_interval="1h")}) as cpro:
        publish(cpro, 10)
        cpro.reload({**ALLOW, **analytics(flush_interval="100ms", clickhouse_database="other")})
        changed = [line["setting"] for line in cpro.log if line["message"] == "this change needs a restart"]
        assert changed == ["clickhouse_analytics.clickhouse_database"]
        publish(cpro, 10, 10)
        time.sleep(0.2)
        assert cpro.stop() == 0
        cpro.write({**ALLOW, **analytics()})
        assert count(cpro) == 20


def test_a_sink_of_a_plugin_gets_every_row_once(tmp_path):
    write_plugin(tmp_path / "packages", "files", FILES)
    out = tmp_path / "out"
    options = {"plugins": {"files": {"folder": str(out)}}}
    cpro = Service(tmp_path / "cpro", {**ALLOW, **analytics(), **options}, env=with_packages(tmp_path / "packages"))
    with cpro:
        publish(cpro, 200)
        assert eventually(lambda: sorted(users_in(out)) == sorted(f"u{n}" for n in range(200)))
        assert cpro.metric('cpro_sink_rows_total{sink="files",table="operations"}') == 200
        os.kill(processes(cpro, "analyst")[0], signal.SIGKILL)
        publish(cpro, 200, 200)
        assert eventually(lambda: len(users_in(out)) == 400)
        publish(cpro, 10, 400)
    assert sorted(users_in(out)) == sorted(f"u{n}" for n in range(410))
    assert (out / "closed").exists()


def users_in(folder) -> list[str]:
    return [user for path in folder.glob("*.json") for user in json.loads(path.read_text())[1]]


def test_hostile_sinks_delay_nobody_else_nor_the_stop(tmp_path):
    write_plugin(tmp_path / "packages", "hostile", HOSTILE)
    settings = {**ALLOW, **analytics(), "shutdown": {"timeout": "3s"}}
    with Service(tmp_path / "cpro", settings, env=with_packages(tmp_path / "packages")) as cpro:
        publish(cpro, 500)
        assert eventually(lambda: count(cpro) == 500)
        assert eventually(lambda: cpro.metric('cpro_sink_errors_total{sink="fail"}') > 1)
        assert eventually(lambda: cpro.metric('cpro_sink_errors_total{sink="leave"}') > 1)
        assert cpro.metric('cpro_sink_errors_total{sink="clickhouse"}') == 0
        publish(cpro, 500, 500)
        assert eventually(lambda: count(cpro) == 1000)
        state = state_of(cpro)
        assert {name for name, sink in state.items() if sink["waiting_rows"]} >= {"hang", "fail", "leave"}
        assert "bug of the plugin" in state["fail"]["error"]
        assert cpro.stop() == 0
        left = next(line for line in log_so_far(cpro) if line["message"].startswith("sinks are not done"))
        assert "hang" in left["sinks"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("@hookimpl\ndef cpro_sinks(config):\n    return object()", "cpro_sinks: 'odd' must have a plain method open"),
        ("@hookimpl\ndef cpro_sinks(config):\n    raise ValueError('no disk')", "cpro_sinks: ValueError: no disk"),
        (
            # what fails in the analyst process alone
            "import sys\nclass Sink:\n    open = write = close = lambda *of: None\n"
            "@hookimpl\ndef cpro_sinks(config):\n    if any('analyst' in a for a in sys.orig_argv):\n"
            "        raise ValueError('only here')\n    return Sink()\n",
            "cpro_sinks: ValueError: only here",
        ),
    ],
)
def test_a_sink_that_can_not_be_loaded_stops_the_start_with_its_name(tmp_path, source, reason):
    write_plugin(tmp_path / "packages", "odd", "from cpro.plugins import hookimpl\n" + source)
    cpro = Service(tmp_path / "cpro", analytics(), env=with_packages(tmp_path / "packages"))
    command = [sys.executable, "-m", "cpro", "serve", "-c", str(cpro.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ, **cpro.env})
    assert done.returncode == 1
    assert f"plugin odd: {reason}" in done.stderr


def test_plugins_lists_sinks(tmp_path):
    write_plugin(tmp_path / "packages", "hostile", HOSTILE)
    env = {**os.environ, **with_packages(tmp_path / "packages")}
    done = subprocess.run(
        [sys.executable, "-m", "cpro", "plugins"], capture_output=True, text=True, env=env, timeout=30
    )
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if "sink" in line] == [
        *(f"  sink {name}" for name in ("hang", "slow", "fail", "leave")),
        "  hook cpro_sinks",
    ]


def test_sinks_without_analytics_are_told_so(tmp_path):
    write_plugin(tmp_path / "packages", "hostile", HOSTILE)
    with Service(tmp_path / "cpro", env=with_packages(tmp_path / "packages")) as cpro:
        said = next(line for line in cpro.log if line["message"].startswith("clickhouse_analytics is off"))
        assert said["sinks"] == ["hang", "slow", "fail", "leave"]
        assert processes(cpro, "analyst") == []


def test_rows_that_found_no_room_are_told(service):
    cpro = service({**ALLOW, **analytics()})
    shutil.rmtree(cpro.folder / "data" / "journal" / "0")
    (cpro.folder / "data" / "journal" / "0").write_text("nobody can make a folder here")

    def dropped() -> bool:
        publish(cpro, 50)
        return "rows found no room" in run_command(cpro, "analytics", "status").stdout

    assert eventually(dropped)


def test_without_analytics_there_is_no_analyst(service):
    cpro = service()
    assert processes(cpro, "analyst") == []
    assert not [line for line in cpro.get("/metrics")[1].splitlines() if line.startswith("cpro_sink")]
