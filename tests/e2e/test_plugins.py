"""Contract 7: plugins as they are installed, in a real cpro."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.backend import Backend
from tests.support.packages import with_packages, write_plugin
from tests.support.service import REFUSED, Service, event, exchange, limits

FAULT = {"error": {"code": 100, "message": "internal server error", "temporary": True}}

GAME = """
    import asyncio, os, time
    from cpro.plugins import OperationType, Reply, hookimpl, result_reply

    async def handle(operation):
        what = operation.method.partition(":")[2]
        if what == "raise":
            raise ValueError("bug of the plugin")
        if what == "hang":
            await asyncio.sleep(3600)
        if what == "nonsense":
            return "nonsense"
        if what == "die":
            os._exit(3)
        if what == "slow":
            await asyncio.sleep(1)
        if what == "pass":
            return None
        return result_reply(data={"user": operation.user, "via": operation.transport, "data": operation.read(object)})

    async def refresh(operation):
        raise ValueError("bug of the plugin")

    @hookimpl
    def cpro_operations(config):
        return [
            OperationType(name="game", handle=handle, namespaces=["game"]),
            OperationType(name="game_refresh", handle=refresh, events=["refresh"]),
        ]
"""

WHO = """
    import pathlib
    from cpro.plugins import hookimpl

    @hookimpl
    def cpro_identify(config):
        return lambda connect: connect.header("Cookie")

    @hookimpl
    def cpro_observe(config):
        def observe(batch):
            with open(config.options["file"], "a") as file:
                file.writelines(f"{one.op} {one.user} {one.verdict}\\n" for one in batch)
        return observe

    @hookimpl
    async def cpro_startup(app):
        app.log.warning("who is up")

    @hookimpl
    async def cpro_shutdown(app):
        app.log.warning("who is down")
"""


@pytest.fixture
def start(service, tmp_path):
    """Start cpro with plugins: `start({"game": GAME}, settings)`."""

    def start(plugins, settings=None):
        for name, source in plugins.items():
            write_plugin(tmp_path / "site", name, source)
        return service(settings, env=with_packages(tmp_path / "site"))

    return start


def rpc(method, **fields):
    return event(method=method, data={"n": 1}, **fields)


def test_a_plugin_answers_a_namespace_and_survives_whatever_it_does(start):
    with Backend(lambda received: {"result": {"data": received.json["method"]}}) as backend:
        cpro = start({"game": GAME}, {"proxy": {"upstream": {"endpoint": backend.url, "timeout": "200ms"}}})
        connection = cpro.connect()

        def ask(method):
            return exchange(connection, "/centrifugo/rpc", rpc(method))[1]

        assert ask("game:move") == {"result": {"data": {"user": "42", "via": "websocket", "data": {"n": 1}}}}
        for bad in ("raise", "hang", "nonsense"):
            assert ask(f"game:{bad}") == FAULT
        assert ask("game:pass") == {"result": {"data": "game:pass"}}
        assert ask("other") == {"result": {"data": "other"}}
        assert exchange(connection, "/centrifugo/refresh", event()) == (502, None)
    assert [received.json["method"] for received in backend.received] == ["game:pass", "other"]
    assert cpro.metric('cpro_plugin_errors_total{plugin="game"}') == 4
    assert cpro.metric('cpro_operations_total{door="proxy",op="game",verdict="failed"}') == 3
    assert cpro.metric('cpro_operations_total{door="proxy",op="game",verdict="admitted"}') == 2
    assert cpro.metric('cpro_operations_total{door="proxy",op="rpc",verdict="admitted"}') == 1
    failed = cpro.wait_for("plugin failed")
    assert failed["plugin"] == "game"
    assert "bug of the plugin" in failed["error"]
    assert cpro.stop() == 0


def test_its_operation_has_limits_of_its_own_that_a_reload_changes(start):
    cpro = start({"game": GAME}, limits(game=(1, "1h"), rpc=(1, "1h")))
    assert [cpro.post("rpc", rpc("game:move"))[1] == REFUSED for _ in range(2)] == [False, True]
    assert [cpro.post("rpc", rpc("other"))[1] == REFUSED for _ in range(2)] == [False, True]
    cpro.reload(limits(game=(3, "1h")))
    assert [cpro.post("rpc", rpc("game:move", user="7"))[1] == REFUSED for _ in range(4)] == [False] * 3 + [True]
    cpro.reload({"client": {"rate_limit": {"dry_run": True, **limits(game=(1, "1h"))["client"]["rate_limit"]}}})
    assert REFUSED not in [cpro.post("rpc", rpc("game:move", user="8"))[1] for _ in range(3)]
    assert cpro.metric('cpro_operations_total{door="proxy",op="game",verdict="dry_run"}') == 2


def test_a_stop_waits_for_handlers(start):
    cpro = start({"game": GAME}, {"proxy": {"upstream": {"timeout": "5s"}}})
    connection = cpro.connect()
    connection.request("POST", "/centrifugo/rpc", json.dumps(rpc("game:slow")))
    time.sleep(0.3)
    cpro.process.send_signal(signal.SIGTERM)
    assert json.loads(connection.getresponse().read())["result"]["data"]["user"] == "42"
    assert cpro.process.wait(10) == 0


def test_a_worker_that_a_plugin_kills_is_started_again_with_its_plugins(start):
    cpro = start({"game": GAME})
    with pytest.raises((ConnectionError, OSError)):
        cpro.post("rpc", rpc("game:die"))
    cpro.wait_for("worker died, starting it again")
    assert "result" in cpro.post("rpc", rpc("game:move"))[1]


def test_plugins_name_users_of_connects_and_watch(start, tmp_path):
    told = tmp_path / "told"
    cpro = start({"who": WHO}, {"plugins": {"who": {"file": str(told)}}, **limits(connect=(1, "1h"))})
    body = {"client": "c1"}
    assert cpro.post("connect", body, {"Cookie": "ann"})[1] == {"result": {"user": "ann"}}
    assert cpro.post("connect", body, {"Cookie": "ann"})[1] == REFUSED
    assert cpro.post("connect", body)[1] == {}
    until = time.monotonic() + 5
    while not (told.exists() and len(told.read_text().splitlines()) == 3) and time.monotonic() < until:
        time.sleep(0.02)
    assert told.read_text().splitlines() == ["connect ann admitted", "connect ann refused", "connect  admitted"]
    cpro.post("publish", event())
    assert cpro.stop() == 0
    assert told.read_text().splitlines()[3:] == ["publish 42 admitted"]
    assert [line["message"] for line in cpro.log] == ["who is up", "ready"]
    assert cpro.wait_for("who is down")["level"] == "warn"


def test_options_of_plugins_wait_for_a_restart_even_where_a_worker_is_started_again(start, tmp_path):
    told, other = tmp_path / "told", tmp_path / "other"
    cpro = start({"who": WHO}, {"plugins": {"who": {"file": str(told)}}})
    cpro.write({"plugins": {"who": {"file": str(other)}}})
    cpro.process.send_signal(signal.SIGHUP)
    assert cpro.wait_for("this change needs a restart")["setting"] == "plugins"
    cpro.wait_for("reloaded")
    os.kill(cpro.workers()[0], signal.SIGKILL)
    cpro.wait_for("who is up")
    cpro.post("connect", {"client": "c1"})
    cpro.stop()
    assert told.exists()
    assert not other.exists()


def test_two_workers_count_a_plugins_operations_together(start):
    cpro = start({"game": GAME}, {"workers": 2, **limits(game=(5, "1h"))})
    answers = [cpro.post("rpc", rpc("game:move"))[1] for _ in range(20)]
    assert answers.count(REFUSED) == 15
    assert cpro.metric('cpro_operations_total{door="proxy",op="game",verdict="refused"}') == 15


BROKEN = [
    ("import nowhere", {}, "can't be loaded: ModuleNotFoundError: No module named 'nowhere'"),
    ("raise SystemExit(0)", {}, "can't be loaded: SystemExit: 0"),
    ("x = 1", {}, "has no hook"),
    (
        "from cpro.plugins import hookimpl\n@hookimpl\ndef cpro_operations(config): return 5",
        {},
        "cpro_operations: must return a list of OperationType",
    ),
    (GAME.replace('name="game"', 'name="publish"'), {}, "operation 'publish': its name is one of cpro's own"),
    (WHO.replace('"who is up"', "1 / 0"), {}, "cpro_startup: ZeroDivisionError"),
]


@pytest.mark.parametrize(("source", "options", "reason"), BROKEN)
def test_a_plugin_that_fails_stops_the_start_with_its_name_and_reason(tmp_path, source, options, reason):
    write_plugin(tmp_path / "site", "broken", source)
    cpro = Service(tmp_path / "cpro", env=with_packages(tmp_path / "site"))
    command = [sys.executable, "-m", "cpro", "serve", "-c", str(cpro.config)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **cpro.env}, timeout=30)
    assert done.returncode == 1
    assert f"plugin broken: {reason}" in done.stderr
    assert '"ready"' not in done.stderr


def run_cpro(folder, *arguments):
    environ = {**os.environ, **with_packages(folder / "site")}
    command = [sys.executable, "-m", "cpro", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=30)


def test_plugins_lists_what_each_registers_and_why_one_can_not_be_used(tmp_path):
    write_plugin(tmp_path / "site", "game", GAME)
    write_plugin(tmp_path / "site", "who", WHO)
    (tmp_path / "c.json").write_text('{"plugins": {"who": {"file": "x"}}}')
    good = run_cpro(tmp_path, "plugins", "-c", "c.json")
    assert good.stdout.splitlines() == [
        "game (cpro-game 1.2)",
        "  operation game: RPC namespace game",
        "  operation game_refresh: event refresh",
        "  hook cpro_operations",
        "who (cpro-who 1.2)",
        "  hook cpro_identify",
        "  hook cpro_observe",
        "  hook cpro_shutdown",
        "  hook cpro_startup",
    ]
    assert good.returncode == 0
    write_plugin(tmp_path / "site", "twin", GAME)
    write_plugin(tmp_path / "site", "zero", "1 / 0")
    write_plugin(tmp_path / "site", "who", WHO, package="cpro-who-else")
    bad = run_cpro(tmp_path, "plugins", "-c", "c.json")
    assert bad.returncode == 1
    assert [line for line in bad.stdout.splitlines() if "failed" in line] == [
        "  failed: operation 'game' is taken already, by plugin game",
        "  failed: another package has a plugin of this name",
        "  failed: can't be loaded: ZeroDivisionError: division by zero",
    ]
    assert "plugin who: has its name twice" in run_cpro(tmp_path, "checkconfig", "-c", "c.json").stderr


def test_no_plugins_is_no_fault(tmp_path):
    done = run_cpro(tmp_path, "plugins")
    assert (done.returncode, done.stdout) == (0, "no plugins are installed\n")


def test_a_configuration_is_checked_together_with_its_plugins(tmp_path):
    write_plugin(tmp_path / "site", "game", GAME)
    (tmp_path / "good.json").write_text(json.dumps(limits(game=(1, "1s"))))
    assert run_cpro(tmp_path, "checkconfig", "-c", "good.json").returncode == 0
    (tmp_path / "bad.json").write_text(json.dumps({"plugins": {"gamer": {}}, **limits(gane=(1, "1s"))}))
    bad = run_cpro(tmp_path, "checkconfig", "-c", "bad.json")
    assert bad.returncode == 1
    assert bad.stdout.splitlines() == [
        "bad.json: plugins.gamer: is not an installed plugin; the nearest is game",
        "bad.json: client.rate_limit.user_command.gane: is not a known key; the nearest is game",
    ]


def test_centrifugos_part_sends_what_plugins_handle(tmp_path):
    write_plugin(tmp_path / "site", "game", GAME)
    part = json.loads(run_cpro(tmp_path, "centrifugoconfig").stdout)
    assert part["rpc"]["namespaces"] == [{"name": "game", "proxy_enabled": True}]
    assert part["client"]["proxy"]["refresh"]["enabled"]
