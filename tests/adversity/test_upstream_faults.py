"""Application backends that fail in every way: Centrifugo gets the right answer, and no publish goes out twice."""

import itertools
import json
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.processes import connections_to, eventually, open_files, resident_bytes
from tests.support.scripted import ScriptedBackend, Visit, echo, reply
from tests.support.service import Service, event, exchange

TIMEOUT_S = 0.25
INTERNAL_ERROR = (200, {"error": {"code": 100, "message": "internal server error", "temporary": True}})
BAD_GATEWAY = (502, None)
FAULTY = {"publish": INTERNAL_ERROR, "rpc": INTERNAL_ERROR, "connect": INTERNAL_ERROR, "refresh": BAD_GATEWAY}
REPEATABLE = ("connect", "refresh")
RESULT = b'{"result":{}}'
OK = (200, {"result": {}})
MIB = 1 << 20

names = (f"client-{number}" for number in itertools.count())


# --- faults: what the backend does once it has the request


def says(data: bytes):
    return lambda visit: visit.send(data)


def says_and(data: bytes, end):
    def fault(visit: Visit) -> None:
        visit.send(data)
        end(visit)

    return fault


def nothing(visit: Visit) -> None:
    visit.pause(30)


def hang_up(visit: Visit) -> None:
    visit.socket.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def reset(visit: Visit) -> None:
    visit.reset()
    raise ConnectionAbortedError


def byte_by_byte(data: bytes, pause_s: float):
    return lambda visit: visit.trickle(data, pause_s)


def endless(start: bytes, piece: bytes):
    def fault(visit: Visit) -> None:
        visit.send(start)
        while True:
            visit.send(piece)

    return fault


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = reply(RESULT)

FAULTS = {
    "resets": reset,
    "closes": hang_up,
    "resets_in_the_head": says_and(WHOLE[:20], reset),
    "closes_in_the_head": says_and(WHOLE[:20], hang_up),
    "resets_in_the_body": says_and(WHOLE[:-1], reset),
    "closes_in_the_body": says_and(WHOLE[:-1], hang_up),
    "closes_in_a_chunk": says_and(CHUNKED + b"d\r\n" + RESULT[:-1], hang_up),
    "closes_before_the_last_chunk": says_and(CHUNKED + b"d\r\n" + RESULT + b"\r\n", hang_up),
    "says_nothing": nothing,
    "stalls_in_the_head": says_and(WHOLE[:20], nothing),
    "stalls_in_the_body": says_and(WHOLE[:-1], nothing),
    "slow_head": byte_by_byte(WHOLE, 0.03),
    "slow_body": says_and(WHOLE[: -len(RESULT)], byte_by_byte(RESULT, 0.03)),
    "garbage": says(b"\x00\xff\x17garbage\r\n\r\n" * 10),
    "not_http": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "http2": says(b"HTTP/2 200\r\n\r\n"),
    "http09": says_and(RESULT, hang_up),
    "500": says(reply(RESULT, status=b"500 Internal Server Error")),
    "503_and_closes": says_and(reply(RESULT, b"Connection: close", status=b"503 Busy"), hang_up),
    "404": says(reply(RESULT, status=b"404 Not Found")),
    "302": says(reply(RESULT, b"Location: http://127.0.0.1:1/", status=b"302 Found")),
    "201": says(reply(RESULT, status=b"201 Created")),
    "204": says(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": says(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 13\r\n\r\n"),
    "101": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    "empty": says(reply(b"")),
    "not_json": says(reply(b"<html>")),
    "json_of_another_kind": says(reply(b"[1, 2]")),
    "half_json": says(reply(RESULT[:-1])),
    "json_twice": says(reply(RESULT * 2)),
    "nested_too_deeply": says(reply(b'{"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
    "gigantic_by_its_own_account": says(HEAD + b"Content-Length: %d\r\n\r\n{" % (17 * MIB)),
    "gigantic_beyond_every_integer": says(HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{"),
    "gigantic_in_chunks": endless(CHUNKED, b"100000\r\n" + b" " * MIB + b"\r\n"),
    "gigantic_until_close": endless(HEAD + b"\r\n", b" " * MIB),
    "endless_in_tiny_chunks": endless(CHUNKED, b"1\r\n \r\n" * 1000),
    "endless_head": endless(HEAD, b"X-More: and more\r\n" * 1000),
    "endless_line": endless(HEAD + b"X-Long: ", b"x" * 10_000),
    "endless_interim_answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "endless_trailers": endless(CHUNKED + b"0\r\n", b"X-More: and more\r\n" * 1000),
    "two_lengths": says(HEAD + b"Content-Length: 13\r\nContent-Length: 14\r\n\r\n" + RESULT),
    "length_and_chunks": says(HEAD + b"Content-Length: 13\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n" + RESULT),
    "length_below_zero": says(HEAD + b"Content-Length: -13\r\n\r\n" + RESULT),
    "length_too_long": says_and(HEAD + b"Content-Length: 14\r\n\r\n" + RESULT, hang_up),
    "length_too_short": says(HEAD + b"Content-Length: 12\r\n\r\n" + RESULT),
    "compressed": says(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
}

CURIOSITIES = {
    "one_byte_at_a_time": byte_by_byte(WHOLE, 0),
    "after_100": says(b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE),
    "after_103": says(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + WHOLE),
    "until_close": says_and(HEAD + b"\r\n" + RESULT, hang_up),
    "by_http_10": says_and(b"HTTP/1.0 200 OK\r\n\r\n" + RESULT, hang_up),
    "by_http_10_that_stays": says(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 13\r\n\r\n" + RESULT),
    "in_chunks_with_trailers": says(CHUNKED + b"1;a=b\r\n{\r\nc\r\n" + RESULT[1:] + b"\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "and_more_than_was_announced": says(WHOLE + b"more"),
    "and_an_answer_nobody_asked_for": says(WHOLE + reply(b'{"result":{"data":"stolen"}}')),
    "just_below_16_mib": says(reply(RESULT + b" " * (16 * MIB - 100))),
}  # fmt: skip


def after(fault, good: int = 0):
    """The script of a backend that works `good` times on each connection, then has the fault."""

    def script(visit: Visit) -> None:
        for _ in range(good):
            if visit.request() is None:
                return
            visit.send(WHOLE)
        while visit.request() is not None:
            fault(visit)

    return script


# --- the house


@pytest.fixture(scope="module")
def backend():
    with ScriptedBackend() as backend:
        yield backend


@pytest.fixture(scope="module")
def cpro(tmp_path_factory, backend):
    """One service for all faults: at the end its worker must hold no more than it did at the beginning."""
    settings = {"proxy": {"upstream": {"endpoint": backend.url, "timeout": f"{TIMEOUT_S * 1000:.0f}ms"}}}
    with Service(tmp_path_factory.mktemp("service"), settings) as service:
        ask(service, "publish")
        (worker,) = service.workers()
        files = open_files(worker) - len(connections_to(backend.port, worker))
        yield service
        assert service.workers() == [worker], "the worker has died"
        assert eventually(lambda: open_files(worker) - len(connections_to(backend.port, worker)) <= files)
        assert len(connections_to(backend.port, worker)) < 30


def ask(cpro: Service, kind: str) -> tuple[str, tuple[int, object], float]:
    """Post one event under a name of its own: the name, the answer, and how long it took."""
    client = next(names)
    began = time.monotonic()
    answer = cpro.post(kind, event(client=client, channel="news", method="m"))
    return client, answer, time.monotonic() - began


def forget_connections(cpro: Service, backend: ScriptedBackend) -> None:
    """Have cpro's next request open a connection, by ending all that it has."""
    backend.hang_up()
    (worker,) = cpro.workers()
    assert eventually(lambda: not connections_to(backend.port, worker))


# --- proofs


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_answer_in_time_and_the_request_was_sent_once(cpro, backend, fault):
    forget_connections(cpro, backend)
    backend.script = after(FAULTS[fault])
    with ThreadPoolExecutor() as pool:
        asked = pool.map(lambda kind: ask(cpro, kind), FAULTY)
    for answer, (client, given, took_s) in zip(FAULTY.values(), asked, strict=True):
        assert given == answer
        assert took_s < TIMEOUT_S + 0.4
        assert backend.arrived[client] <= 1  # none: a backend busy with an endless answer has not got to it
    backend.script = echo
    forget_connections(cpro, backend)
    client, given, _ = ask(cpro, "publish")
    assert given == (200, {"result": {"data": client}}), "the next request does not suffer"


@pytest.mark.parametrize("curiosity", CURIOSITIES)
def test_odd_but_right_answers_are_taken_as_they_are(cpro, backend, curiosity):
    backend.script = after(CURIOSITIES[curiosity])
    forget_connections(cpro, backend)
    for kind in list(FAULTY) * 2:
        client, given, _ = ask(cpro, kind)
        assert given == OK, kind
        assert backend.arrived[client] == 1


@pytest.mark.parametrize("end", [hang_up, reset])
def test_a_reused_connection_that_dies_repeats_what_may_be_repeated_once_and_a_publish_never(cpro, backend, end):
    for kind, failed in FAULTY.items():
        backend.script = after(end, good=1)
        forget_connections(cpro, backend)
        assert ask(cpro, kind)[1] == OK
        client, given, _ = ask(cpro, kind)
        may_repeat = kind in REPEATABLE
        assert given == (OK if may_repeat else failed)
        assert backend.arrived[client] == 1 + may_repeat


def test_a_repetition_that_fails_too_is_final(cpro, backend):
    for kind, failed in FAULTY.items():
        forget_connections(cpro, backend)
        number = backend.connections
        backend.script = lambda visit, number=number: after(hang_up, good=visit.number == number + 1)(visit)
        assert ask(cpro, kind)[1] == OK
        client, given, _ = ask(cpro, kind)
        assert given == failed
        assert backend.arrived[client] == 1 + (kind in REPEATABLE)


def test_a_backend_that_closes_idle_connections_at_every_moment_never_gets_a_publish_twice(cpro, backend):
    dice = random.Random(3)

    def fickle(visit: Visit) -> None:
        """Works, and closes (or resets) some time after an answer: often just when the next request is on its way."""
        visit.socket.settimeout(5)
        while visit.request() is not None:
            visit.send(WHOLE)
            visit.socket.settimeout(dice.choice([5, 0.001, 0.002, 0.003]))
            try:
                visit.socket.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                (hang_up if dice.random() < 0.5 else reset)(visit)
            if dice.random() < 0.02:
                reset(visit)

    backend.script = fickle
    outcomes: dict[str, Counter] = {kind: Counter() for kind in FAULTY}

    def many(kind: str) -> None:
        connection = cpro.connect()
        for _ in range(400):
            client = next(names)
            given = exchange(connection, f"/centrifugo/{kind}", event(client=client, channel="news", method="m"))
            assert given in (OK, FAULTY[kind])
            assert backend.arrived[client] <= 1 + (kind in REPEATABLE)
            assert given != OK or backend.arrived[client] >= 1
            outcomes[kind][given == OK] += 1
            time.sleep(dice.choice([0, 0.001, 0.002, 0.003]))
        connection.close()

    with ThreadPoolExecutor() as pool:
        list(pool.map(many, FAULTY))
    assert all(outcome[True] > 200 for outcome in outcomes.values())


def test_a_dead_backend_is_an_error_and_one_that_comes_is_used_at_once(service):
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        cpro = service({"proxy": {"upstream": {"endpoint": f"http://127.0.0.1:{port}"}}})
        for kind, failed in FAULTY.items():
            _, given, took_s = ask(cpro, kind)
            assert given == failed
            assert took_s < 0.3
    with ScriptedBackend(after(says(WHOLE)), port):
        assert ask(cpro, "publish")[1] == OK


# --- several endpoints


def test_with_two_of_three_endpoints_dead_every_request_succeeds_and_one_that_returns_is_used(service):
    held = [socket.socket() for _ in range(2)]
    for one in held:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    with ScriptedBackend() as alive:
        endpoints = [f"http://127.0.0.1:{ports[0]}/a", alive.url, f"http://127.0.0.1:{ports[1]}/b"]
        cpro = service({"proxy": {"upstream": {"endpoints": endpoints}}})

        def many(kind: str) -> None:
            connection = cpro.connect()
            for _ in range(100):
                client = next(names)
                given = exchange(connection, f"/centrifugo/{kind}", event(client=client, channel="news", method="m"))
                assert given == (200, {"result": {"data": client}})
                assert alive.arrived[client] == 1

        with ThreadPoolExecutor() as pool:
            list(pool.map(many, FAULTY))
        held[0].close()
        with ScriptedBackend(port=ports[0]) as back:
            assert eventually(lambda: ask(cpro, "publish")[0] in back.arrived, 5)
            clients = [ask(cpro, "publish")[0] for _ in range(20)]
            assert sum(client in back.arrived for client in clients) == 10, "both take their turns"
        assert all(ask(cpro, "publish")[1][1].get("result") for _ in range(20)), "and it may go again"
    held[1].close()


def test_an_endpoint_that_accepts_no_connection_costs_the_first_requests_time_and_nobody_success(service):
    with socket.socket() as deaf, ScriptedBackend() as alive:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        knocks = [socket.socket() for _ in range(2)]
        for knock in knocks:
            knock.setblocking(False)
            knock.connect_ex(deaf.getsockname())
        endpoints = [f"http://127.0.0.1:{deaf.getsockname()[1]}/", alive.url]
        cpro = service({"proxy": {"upstream": {"endpoints": endpoints}}})
        waits = []
        for _ in range(20):
            client, given, took_s = ask(cpro, "publish")
            assert given == (200, {"result": {"data": client}})
            waits.append(took_s)
        assert sorted(waits)[-2] < 0.2, "only one request finds out"
        for knock in knocks:
            knock.close()


def test_an_endpoint_that_fails_again_and_again_is_skipped(service):
    with ScriptedBackend(after(reset)) as failing, ScriptedBackend() as alive:
        cpro = service({"proxy": {"upstream": {"endpoints": [failing.url, alive.url]}}})
        asked = [ask(cpro, "publish") for _ in range(60)]
        lost = [client for client, given, _ in asked if given == INTERNAL_ERROR]
        assert len(lost) <= 5, "three to be skipped, one for each time it is tried again"
        assert all((failing.arrived + alive.arrived)[client] == 1 for client, _, _ in asked)


# --- https


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
def test_an_https_backend_is_asked_only_when_its_certificate_comes_from_the_authority(service, tmp_path):
    for name in ("backend", "other"):
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj"
            f" /CN={name} -addext subjectAltName=IP:127.0.0.1 -keyout {name}.key -out {name}.pem"
        )
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "backend.pem", tmp_path / "backend.key")
    with ScriptedBackend(tls=context) as backend:
        for authority, trusted in (("backend", True), ("other", False), ("", False)):
            tls = {"enabled": True, "server_ca_pem": authority and str(tmp_path / f"{authority}.pem")}
            cpro = service({"proxy": {"upstream": {"endpoint": backend.url, "tls": tls}}})
            for kind, failed in FAULTY.items():
                client, given, _ = ask(cpro, kind)
                assert given == ((200, {"result": {"data": client}}) if trusted else failed)
                assert backend.arrived[client] == trusted
        plain = service({"proxy": {"upstream": {"endpoint": backend.url.replace("https", "http")}}})
        assert ask(plain, "publish")[1] == INTERNAL_ERROR


# --- nothing leaks


QUICK = [fault for fault in FAULTS if fault not in (
    "says_nothing", "stalls_in_the_head", "stalls_in_the_body", "slow_head", "slow_body",
    "endless_interim_answers", "endless_in_tiny_chunks",
)]  # fmt: skip


def leak_over(cpro: Service, backend: ScriptedBackend, rounds: int) -> tuple[int, int]:
    """By how many bytes and files a worker grows over that many rounds of all quick faults, after a first few."""
    (worker,) = cpro.workers()
    faults = threading.local()

    def all_faults(_: int) -> None:
        for fault in QUICK:
            faults.now = fault
            for kind, failed in FAULTY.items():
                body = json.dumps(event(client=f"{fault} {next(names)}", channel="news", method="m"))
                assert cpro.post(kind, body) == failed, fault

    def by_name(visit: Visit) -> None:
        while (asked := visit.request()) is not None:
            FAULTS[asked["client"].split()[0]](visit)

    backend.script = by_name
    forget_connections(cpro, backend)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(all_faults, range(4)))
        memory, files = resident_bytes(worker), open_files(worker)
        list(pool.map(all_faults, range(rounds)))
    eventually(lambda: open_files(worker) <= files, 2)
    return resident_bytes(worker) - memory, open_files(worker) - files


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_thousands_of_faults_leave_no_file_and_no_memory_behind(cpro, backend):
    grown, files = leak_over(cpro, backend, 40)
    assert grown < 4 * MIB
    assert files <= 2
