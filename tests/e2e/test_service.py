"""Contract 2: how the service starts, stops, reloads, and what it does when parts of it die."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.backend import Backend
from tests.support.service import REFUSED, Service, event, exchange, limits

ALLOW = {"proxy": {"without_upstream": "allow"}}


def test_ready_names_the_addresses_and_health_and_metrics_answer(service):
    cpro = service()
    assert cpro.get("/health") == (200, "{}")
    assert cpro.get("/metrics")[0] == 200
    assert cpro.get("/other")[0] == 404


def test_metrics_can_be_turned_off(service):
    assert service({"prometheus": {"enabled": False}}).get("/metrics")[0] == 404


def test_the_api_is_closed_without_a_key_and_opens_with_it(service):
    closed, open_ = service(), service({"http_api": {"key": "k"}})
    for cpro, headers, status in [
        (closed, {"X-API-Key": ""}, 401),
        (closed, {}, 401),
        (open_, {}, 401),
        (open_, {"X-API-Key": "wrong"}, 401),
        (open_, {"X-API-Key": "k"}, 404),
        (open_, {"Authorization": "apikey k"}, 404),
    ]:
        assert exchange(cpro.connect(cpro.api), "/api/info", {}, headers)[0] == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_in_flight_and_exits_0(service, number):
    asked = threading.Event()

    def slowly(received):
        asked.set()
        time.sleep(0.5)
        return {"result": {"data": 1}}

    with Backend(slowly) as backend:
        cpro = service({"proxy": {"upstream": {"endpoint": backend.url, "timeout": "5s"}}})
        connection = cpro.connect()
        connection.request("POST", "/centrifugo/rpc", json.dumps(event(method="m")))
        assert asked.wait(5)
        cpro.process.send_signal(number)
        response = connection.getresponse()
        assert json.loads(response.read()) == {"result": {"data": 1}}
        assert response.headers["Connection"] == "close"
        assert cpro.process.wait(5) == 0


def test_health_says_503_while_stopping(service):
    released, asked = threading.Event(), threading.Event()

    def hold(received):
        asked.set()
        released.wait(5)
        return {"result": {}}

    with Backend(hold) as backend:
        cpro = service({"proxy": {"upstream": {"endpoint": backend.url, "timeout": "5s"}}})
        connection = cpro.connect()
        connection.request("POST", "/centrifugo/rpc", json.dumps(event(method="m")))
        assert asked.wait(5)
        cpro.process.send_signal(signal.SIGTERM)
        cpro.wait_for("stopping")
        until = time.monotonic() + 3
        while (answer := cpro.get("/health")[0]) != 503 and time.monotonic() < until:
            time.sleep(0.01)
        released.set()
        assert answer == 503
        assert connection.getresponse().read() == b'{"result": {}}'
        assert cpro.process.wait(5) == 0


def test_a_stop_with_idle_connections_is_quick(service):
    cpro = service(ALLOW)
    connections = [cpro.connect() for _ in range(20)]
    for connection in connections:
        assert exchange(connection, "/centrifugo/publish", event()) == (200, {"result": {}})
    began = time.monotonic()
    assert cpro.stop() == 0
    assert time.monotonic() - began < 5


def test_a_second_instance_on_the_same_folder_says_so_and_exits_1(service, tmp_path):
    cpro = service()
    second = subprocess.run(
        [sys.executable, "-m", "cpro", "serve", "-c", str(cpro.config)], capture_output=True, text=True, timeout=20
    )
    assert second.returncode == 1
    assert "in use by another cpro" in second.stderr
    assert str(cpro.process.pid) in second.stderr


def test_a_port_that_is_taken_by_another_cpro_is_not_shared(service, tmp_path):
    cpro = service()
    other = Service(tmp_path / "other", {"proxy": {"address": cpro.proxy}})
    with pytest.raises(AssertionError, match=r"ended with 1.*proxy\.address"):
        other.start()


def test_a_faulty_configuration_exits_1_and_names_the_fault(tmp_path):
    path = tmp_path / "cpro.json"
    path.write_text('{"proxy": {"adress": "x"}}')
    result = subprocess.run(
        [sys.executable, "-m", "cpro", "serve", "-c", str(path)], capture_output=True, text=True, timeout=20
    )
    assert result.returncode == 1
    assert f"{path}: proxy.adress: " in result.stderr
    assert "Traceback" not in result.stderr


def test_everything_runs_in_one_session_and_dies_with_the_supervisor(service):
    cpro = service({"workers": 2})
    workers = cpro.workers()
    assert len(workers) == 2
    for pid in workers:
        assert os.getsid(pid) == os.getsid(cpro.process.pid)
        assert os.getpgid(pid) == os.getpgid(cpro.process.pid)
    cpro.process.kill()
    cpro.process.wait(5)
    until = time.monotonic() + 5
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < until, "workers outlive their supervisor"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_dies_is_replaced_while_the_others_serve(service):
    cpro = service({**ALLOW, "workers": 2})
    os.kill(cpro.workers()[0], signal.SIGKILL)
    cpro.wait_for("worker died, starting it again")
    until = time.monotonic() + 10
    while len(cpro.workers()) < 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert all(cpro.post("publish", event()) == (200, {"result": {}}) for _ in range(20))


def test_connections_that_wait_for_a_dead_worker_are_served_by_its_successor(service):
    cpro = service(ALLOW)
    os.kill(cpro.workers()[0], signal.SIGKILL)
    assert all(cpro.post("publish", event()) == (200, {"result": {}}) for _ in range(20))


def test_a_reload_changes_limits_without_dropping_a_connection(service):
    cpro = service({**ALLOW, **limits(publish=(1, "1m"))})
    connection = cpro.connect()

    def publish(user):
        return exchange(connection, "/centrifugo/publish", event(user))[1]

    assert [publish("a"), publish("a")] == [{"result": {}}, REFUSED]
    cpro.reload({**ALLOW, **limits(publish=(3, "1m"))})
    assert [publish("b") for _ in range(4)] == [{"result": {}}] * 3 + [REFUSED]
    assert publish("a") == REFUSED, "the share of the bucket that is used stays used"
    assert cpro.metric('cpro_config_reloads_total{outcome="ok"}') == 1


def test_a_reload_changes_backend_and_secret(service):
    with (
        Backend(lambda received: {"result": {"data": 1}}) as one,
        Backend(lambda received: {"result": {"data": 2}}) as two,
    ):
        cpro = service({"proxy": {"upstream": {"endpoint": one.url}}})
        assert cpro.post("rpc", event(method="m"))[1] == {"result": {"data": 1}}
        cpro.reload({"proxy": {"upstream": {"endpoint": two.url}, "secret": "s"}})
        assert cpro.post("rpc", event(method="m")) == (401, None)
        assert cpro.post("rpc", event(method="m"), {"X-Cpro-Secret": "s"})[1] == {"result": {"data": 2}}


def test_a_bad_file_keeps_the_old_configuration_and_says_so(service):
    cpro = service({**ALLOW, **limits(publish=(2, "1m"))})
    cpro.config.write_text('{"client": {"rate_limit": {"user_command": {"publish": {"bucket": []}}}}}')
    cpro.process.send_signal(signal.SIGHUP)
    refused = cpro.wait_for("reload refused, the old configuration stays")
    assert any("client.rate_limit.user_command.publish.bucket" in fault for fault in refused["faults"])
    assert [cpro.post("publish", event())[1] for _ in range(3)] == [{"result": {}}] * 2 + [REFUSED]
    assert cpro.metric('cpro_config_reloads_total{outcome="failed"}') == 1


def test_what_a_reload_cannot_change_stays_even_in_a_worker_that_is_started_again(service):
    before = {**ALLOW, **limits("redis_user_command", publish=(2, "1m"))}
    cpro = service(before)
    cpro.reload({**before, "redis": {"address": ["127.0.0.1:1", "127.0.0.1:2"]}, "max_body_size": 10})
    assert any("until a restart" in line["message"] for line in cpro.log)
    os.kill(cpro.workers()[0], signal.SIGKILL)
    cpro.wait_for("worker died, starting it again")
    assert [cpro.post("publish", event())[1] for _ in range(3)] == [{"result": {}}] * 2 + [REFUSED]
    assert cpro.metric('cpro_operations_total{door="proxy",op="publish",verdict="refused"}') == 1
    assert cpro.metric("cpro_worker_restarts_total") == 1


def test_a_unix_socket_is_served_and_an_abandoned_one_replaced(tmp_path):
    path = tmp_path / "proxy.sock"
    settings = {"proxy": {"without_upstream": "allow", "address": f"unix://{path}"}, "workers": 2}
    with Service(tmp_path / "cpro", settings) as cpro:
        assert cpro.proxy == f"unix://{path}"
        assert over_unix(path) == (200, {"result": {}})
        cpro.kill_all()
        assert path.exists()
        cpro.start()
        assert over_unix(path) == (200, {"result": {}})
    assert not path.exists()


def over_unix(path: Path) -> tuple[int, object]:
    connection = http.client.HTTPConnection("localhost", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    connection.sock.connect(str(path))
    try:
        return exchange(connection, "/centrifugo/publish", event())
    finally:
        connection.close()


def test_systemd_is_told_when_it_asks(tmp_path):
    path = tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        with Service(tmp_path / "cpro", env={"NOTIFY_SOCKET": str(path)}) as cpro:
            assert manager.recv(100) == b"READY=1"
            cpro.process.send_signal(signal.SIGHUP)
            assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"STOPPING=1"


def test_secrets_never_appear_in_the_log(tmp_path):
    settings = {
        "log": {"level": "trace"},
        "secret": "sesame-1",
        "proxy": {"secret": "sesame-2", "upstream": {"endpoint": "http://127.0.0.1:1/x"}},
        "http_api": {"key": "sesame-3"},
    }
    with Service(tmp_path / "cpro", settings) as cpro:
        cpro.post("publish", b"nonsense", {"X-Cpro-Secret": "sesame-2"})
        cpro.post("publish", event(), {"X-Cpro-Secret": "sesame-2"})
        cpro.reload({**settings, "proxy": {"secret": "sesame-4"}})
        cpro.stop()
        with pytest.raises(AssertionError, match="ended with 0"):
            cpro.wait_for("nothing like this")
    assert "sesame" not in json.dumps(cpro.log)
