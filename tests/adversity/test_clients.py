"""Clients that are slow, rude, many, or gone: they get what they deserve, and nobody else notices."""

import asyncio
import json
import resource
import selectors
import signal
import socket
import statistics
import struct
import time
from contextlib import ExitStack, suppress

import pytest

from tests.support.processes import connections_to, cpu_s, eventually, log_so_far, open_files, resident_bytes
from tests.support.scripted import ScriptedBackend, Visit, echo, reply
from tests.support.service import Service, event
from tests.support.wire import Wire, post

ALLOW = {"proxy": {"without_upstream": "allow"}}
BODY = json.dumps(event(channel="news")).encode()
REQUEST = post(BODY)
OK = b'{"result":{}}'
WAITS = post(json.dumps(event(method="slow")).encode(), b"/centrifugo/rpc")
"""A request whose answer takes `SLOW_S`."""
SLOW_S = 0.15


def slowly(visit: Visit) -> None:
    while visit.request() is not None:
        visit.pause(SLOW_S)
        visit.send(reply(OK))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with ScriptedBackend(slowly) as backend:
        upstream = {"overrides": {"rpc": f"{backend.url}/rpc"}}
        settings = {"proxy": {"without_upstream": "allow", "upstream": upstream}}
        with Service(tmp_path_factory.mktemp("clients"), settings) as service:
            yield service
            ready = [line["message"] for line in log_so_far(service)].index("ready")
            assert service.log[ready + 1 :] == []


@pytest.fixture
def cpro(running):
    """The shared service; whatever a test does to it, its worker closes every file that was opened for it."""
    (worker,) = running.workers()
    clients = open_files(worker) - backend_connections(running, worker)
    yield running
    assert running.workers() == [worker], "the worker has died"
    assert eventually(lambda: open_files(worker) - backend_connections(running, worker) <= clients)


def backend_connections(cpro: Service, worker: int) -> int:
    port = int(cpro.settings["proxy"]["upstream"]["overrides"]["rpc"].split(":")[2].split("/")[0])
    return len(connections_to(port, worker))


def raise_file_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < needed:
        pytest.skip(f"needs {needed} open files, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


# --- slow


def test_many_clients_that_send_a_byte_at_a_time_do_not_slow_others(cpro):
    waits = []
    with ExitStack() as stack:
        slow = [stack.enter_context(Wire(cpro.proxy)) for _ in range(200)]
        prompt = stack.enter_context(Wire(cpro.proxy))
        for position in range(len(REQUEST)):
            for wire in slow:
                wire.send(REQUEST[position : position + 1])
            began = time.monotonic()
            assert prompt.send(REQUEST).answer()[::2] == (200, OK)
            waits.append(time.monotonic() - began)
        assert all(wire.answer()[::2] == (200, OK) for wire in slow)
    assert statistics.median(waits) < 0.3
    assert max(waits) < 5


@pytest.mark.slow
def test_a_head_that_takes_more_than_10_s_is_given_up_though_bytes_keep_coming(cpro):
    with Wire(cpro.proxy) as wire:
        began = time.monotonic()
        with suppress(ConnectionError):
            for byte in REQUEST:
                wire.send(bytes([byte]))
                time.sleep(0.5)
        assert 9 < time.monotonic() - began < 14


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_body_may_take_longer_than_10_s_while_it_keeps_coming(cpro):
    with Wire(cpro.proxy) as wire:
        wire.send(REQUEST[: -len(BODY)])
        for position in range(0, len(BODY), 10):
            time.sleep(1.3)
            wire.send(BODY[position : position + 10])
        assert wire.answer()[::2] == (200, OK)


# --- half-closed

CHUNKED = b"POST /centrifugo/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
STATES = {
    "before_anything": (b"", 0),
    "in_the_request_line": (REQUEST[:7], 0),
    "in_the_head": (REQUEST[:40], 0),
    "between_head_and_body": (REQUEST[: -len(BODY)], 0),
    "in_the_body": (REQUEST[:-3], 0),
    "in_a_chunk": (CHUNKED + b"10\r\n{", 0),
    "before_the_last_chunk": (CHUNKED + b"2\r\n{}\r\n", 0),
    "after_a_request": (REQUEST, 1),
    "after_a_request_and_in_the_next": (REQUEST + REQUEST[:-1], 1),
    "after_many_requests": (REQUEST * 100, 100),
    "while_the_backend_works": (WAITS, 1),
    "while_the_backend_works_and_more_wait": (WAITS + REQUEST + WAITS + REQUEST, 4),
    "while_the_backend_works_and_half_a_request_waits": (WAITS + REQUEST[:-1], 1),
}


@pytest.mark.parametrize("state", STATES)
def test_a_client_that_has_said_everything_gets_its_answers_and_no_more(cpro, state):
    data, answers = STATES[state]
    with Wire(cpro.proxy) as wire:
        wire.send(data)
        wire.socket.shutdown(socket.SHUT_WR)
        for _ in range(answers):
            assert wire.answer()[::2] == (200, OK)
        assert wire.is_closed()


@pytest.mark.parametrize("state", STATES)
def test_a_client_that_resets_harms_nobody(cpro, state):
    data, _ = STATES[state]
    with Wire(cpro.proxy) as other:
        for number, wire in enumerate([Wire(cpro.proxy).send(data) for _ in range(10)]):
            time.sleep(0.005 * (number == 5))  # half of them are gone before cpro reads, half after
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.socket.close()
        assert other.send(REQUEST).answer()[::2] == (200, OK)


def test_a_client_that_resets_in_the_middle_of_its_answers_harms_nobody(cpro):
    for _ in range(50):
        wire = Wire(cpro.proxy)
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.send(REQUEST * 300)
        wire.socket.recv(100)
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.socket.close()
    with Wire(cpro.proxy) as wire:
        assert wire.send(REQUEST).answer()[::2] == (200, OK)


# --- never reading


def stuff(wires: list[Wire], data: bytes, at_most_s: float = 10.0) -> dict[Wire, int]:
    """Send on all of them without ever reading, until nothing is taken any more; how many bytes each has taken."""
    taken = dict.fromkeys(wires, 0)
    until = time.monotonic() + at_most_s
    with selectors.DefaultSelector() as selector:
        for wire in wires:
            wire.socket.setblocking(False)
            selector.register(wire.socket, selectors.EVENT_WRITE, wire)
        while time.monotonic() < until and (ready := selector.select(0.4)):
            for key, _ in ready:
                offset = taken[key.data] % len(data)
                with suppress(BlockingIOError):
                    taken[key.data] += key.data.socket.send(data[offset:])
    for wire in wires:
        wire.socket.settimeout(5)
    assert time.monotonic() < until, "cpro goes on reading what it can't answer"
    return taken


@pytest.mark.parametrize("request_bytes", [REQUEST, WAITS], ids=["answered_at_once", "answered_later"])
def test_clients_that_never_read_cost_little_memory_and_no_time_of_others(cpro, request_bytes):
    (worker,) = cpro.workers()
    with ExitStack() as stack:
        prompt = stack.enter_context(Wire(cpro.proxy))
        assert prompt.send(REQUEST).answer()[0] == 200
        before = resident_bytes(worker)
        wires = [stack.enter_context(Wire(cpro.proxy)) for _ in range(5)]
        stuff(wires, request_bytes * 500)
        grown = resident_bytes(worker) - before
        assert grown < 5 * 1_300_000, f"{grown / 5:.0f} bytes for each"  # a body of the default size is as much
        began = time.monotonic()
        assert prompt.send(REQUEST).answer()[::2] == (200, OK)
        assert time.monotonic() - began < 5
        busy = cpu_s(worker)
        time.sleep(0.5)
        if request_bytes is REQUEST:
            assert cpu_s(worker) - busy < 0.2, "cpro spins"
    assert eventually(lambda: resident_bytes(worker) - before < 5_000_000)


def test_a_client_that_begins_to_read_after_all_gets_every_answer_in_order(cpro):
    with Wire(cpro.proxy) as wire:
        unit = b"".join(post(BODY, path) for path in (b"/centrifugo/publish", b"/nowhere", b"/centrifugo/subscribe"))
        taken = stuff([wire], unit * 200)[wire]
        whole, rest = divmod(taken, len(unit))
        rest_answers = (unit[:rest].count(BODY)) if rest else 0
        expected = [200, 404, 200] * whole + [200, 404, 200][:rest_answers]
        assert [wire.answer()[0] for _ in expected] == expected


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_client_that_never_reads_is_dropped_after_a_minute(cpro):
    (worker,) = cpro.workers()
    before = open_files(worker)
    with Wire(cpro.proxy) as wire:
        stuff([wire], REQUEST * 500)
        assert open_files(worker) == before + 1
        time.sleep(45)
        assert open_files(worker) == before + 1
        assert eventually(lambda: open_files(worker) == before, 25)


# --- many


def test_10_000_idle_connections_all_answer_and_cost_little(service):
    raise_file_limit(10_500)
    cpro = service(ALLOW)
    (worker,) = cpro.workers()
    host, port = cpro.proxy.rsplit(":", 1)
    before = resident_bytes(worker)
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection((host, int(port)), 10)) for _ in range(10_000)]
        for _ in range(2):
            for first in range(0, len(connections), 500):
                for connection in connections[first : first + 500]:
                    connection.sendall(REQUEST)
                for connection in connections[first : first + 500]:
                    assert connection.recv(1000).endswith(OK)
        each = (resident_bytes(worker) - before) / len(connections)
        began = time.monotonic()
        assert cpro.post("publish", event()) == (200, {"result": {}})
        assert time.monotonic() - began < 5
        busy = cpu_s(worker)
        time.sleep(1.5)
        assert cpu_s(worker) - busy < 0.2, "idle connections cost CPU"
    print(f"an idle connection takes {each:.0f} bytes")
    assert each < 4096
    assert eventually(lambda: open_files(worker) < 100)


def test_1_000_connects_a_second_are_all_served(cpro):
    seconds, rate = 2, 1000
    waits: list[float] = []
    request = post(BODY, headers=b"Connection: close\r\n")

    async def one(number: int, began: float) -> None:
        await asyncio.sleep(began + number / rate - time.monotonic())
        at = time.monotonic()
        host, port = cpro.proxy.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(OK)
        writer.close()
        waits.append(time.monotonic() - at)

    async def all_of_them() -> None:
        began = time.monotonic() + 0.1
        await asyncio.gather(*(one(number, began) for number in range(seconds * rate)))

    asyncio.run(all_of_them())
    assert len(waits) == seconds * rate
    assert statistics.quantiles(waits, n=100)[98] < 1


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one(service):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        cpro = service(ALLOW)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(cpro.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    assert resource.prlimit(cpro.workers()[0], resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_worker_out_of_files_serves_those_it_has_and_recovers(service):
    with ScriptedBackend(echo) as backend:
        upstream = {"overrides": {"rpc": f"{backend.url}/rpc"}}
        cpro = service({"proxy": {"without_upstream": "allow", "upstream": upstream}})
        (worker,) = cpro.workers()
        limit = open_files(worker) + 20
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(cpro.proxy, 1.0)) for _ in range(40)]
            served = []
            for wire in wires:
                with suppress(OSError, EOFError):
                    if wire.send(REQUEST).answer()[::2] == (200, OK):
                        served.append(wire)
            assert 15 <= len(served) <= 20
            status, _, body = served[0].send(WAITS).answer()  # no file is left for a connection to the backend
            assert (status, json.loads(body)["error"]["code"]) == (200, 100)
            busy = cpu_s(worker)
            time.sleep(1)
            assert cpu_s(worker) - busy < 0.5, "cpro spins while it can't accept"
            assert all(wire.send(REQUEST).answer()[::2] == (200, OK) for wire in served)
        assert eventually(lambda: open_files(worker) <= limit - 15)
        assert all(cpro.post("publish", event()) == (200, {"result": {}}) for _ in range(5))
        assert cpro.post("rpc", event(method="m")) == (200, {"result": {"data": "c1"}})


def test_a_stop_is_not_held_up_by_clients_that_begin_a_request_and_never_end_it(service):
    cpro = service({**ALLOW, "shutdown": {"timeout": "300ms"}})
    with ExitStack() as stack:
        for data, _ in STATES.values():
            stack.enter_context(Wire(cpro.proxy)).send(data)
        stuff([stack.enter_context(Wire(cpro.proxy))], REQUEST * 500)
        began = time.monotonic()
        assert cpro.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10
