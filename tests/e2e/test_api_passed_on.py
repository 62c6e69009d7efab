"""The API of a running cpro before a scripted Centrifugo: stops, reloads, TLS, and Centrifugos that misbehave."""

import json
import shutil
import signal
import ssl
import subprocess
import threading
import time
import urllib.request

import cent
import pytest

from tests.support.backend import Backend
from tests.support.status import USER_STATUS, call

OK = {"result": {}}
AWAY = {"error": {"code": 100, "message": "internal server error"}}


def base(backend: Backend) -> str:
    return backend.url.removesuffix("/centrifugo")


def api(backend: Backend, **more: object) -> dict:
    return {**USER_STATUS, "http_api": {"key": "k", "centrifugo": base(backend), "centrifugo_key": "c", **more}}


def test_a_request_that_is_under_way_is_finished_before_the_service_stops(service):
    arrived = threading.Event()

    def slow(received):
        arrived.set()
        time.sleep(2.0)
        return OK

    with Backend(slow) as backend:
        cpro = service(api(backend))
        answers = []
        caller = threading.Thread(target=lambda: answers.append(call(cpro, "publish", {"channel": "a"})))
        caller.start()
        assert arrived.wait(5)
        assert cpro.stop() == 0
        caller.join(5)
    assert answers == [(200, OK)]


def test_a_reload_leads_to_another_centrifugo_with_another_key(service):
    with Backend() as one, Backend() as two:
        cpro = service(api(one))
        assert call(cpro, "info", {}) == (200, OK)
        cpro.reload(api(two, centrifugo_key="d"))
        assert call(cpro, "info", {}) == (200, OK)
        cpro.reload(api(two, centrifugo="", centrifugo_key=""))
        assert call(cpro, "info", {})[0] == 404
        keys = [dict(received.headers)["X-API-Key"] for backend in (one, two) for received in backend.received]
    assert keys == ["c", "d"]


def test_a_centrifugo_that_breaks_off_is_asked_once(service):
    with Backend(lambda received: 1 / 0) as backend:  # the connection ends without an answer
        cpro = service(api(backend))
        assert call(cpro, "publish", {"channel": "a"}) == (200, AWAY)
        assert len(backend.received) == 1
        assert cpro.metric('cpro_operations_total{door="api",op="passed_on",verdict="failed"}') == 1


def test_a_wrong_key_for_centrifugo_is_told_to_the_operator(service):
    with Backend(lambda received: (401, b"")) as backend:
        cpro = service(api(backend))
        assert call(cpro, "info", {})[0] == 401
        cpro.wait_for("Centrifugo's API refuses http_api.centrifugo_key")


def test_requests_on_one_connection_are_answered_in_order_whoever_answers(service):
    with Backend(lambda received: {"result": {"for": received.path}}) as backend:
        cpro = service(api(backend))
        connection = cpro.connect(cpro.api)
        connection.connect()
        requests = b""
        for number in range(20):
            method = b"get_user_status" if number % 2 else b"m%d" % number
            head = b"POST /api/%b HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\nContent-Length: 12\r\n\r\n" % method
            requests += head + b'{"users":[]}'
        connection.sock.sendall(requests)
        reader = connection.sock.makefile("rb")
        for number in range(20):
            length = 0
            while (line := reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answer = json.loads(reader.read(length))["result"]
            assert answer == ({"statuses": []} if number % 2 else {"for": f"/api/m{number}"})
        reader.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_the_api_speaks_tls(tmp_path, service):
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=cpro"
        " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    tls = {"enabled": True, "cert_pem": str(tmp_path / "cert.pem"), "key_pem": str(tmp_path / "key.pem")}
    with Backend() as backend:
        cpro = service(api(backend, tls=tls))
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        request = urllib.request.Request(
            f"https://{cpro.api}/api/get_user_status", b'{"users":["42"]}', {"X-API-Key": "k"}
        )
        with urllib.request.urlopen(request, timeout=5, context=context) as response:
            assert json.load(response) == {"result": {"statuses": [{"user": "42"}]}}
        assert cpro.stop(signal.SIGTERM) == 0


def test_cent_works_without_a_centrifugo_for_what_is_cpros_own(service):
    cpro = service(USER_STATUS)
    client = cent.Client(f"http://{cpro.api}/api", "k")
    client.update_user_status(cent.UpdateUserStatusRequest(users=["42"]))
    found = client.get_user_status(cent.GetUserStatusRequest(users=["42", "43"])).statuses
    assert [bool(one.active) for one in found] == [True, False]
    with pytest.raises(cent.CentTransportError) as caught:
        client.info(cent.InfoRequest())
    assert caught.value.status_code == 404
