"""Reloads, kills and pauses under load: no request is answered wrongly, and nobody else's connection is lost."""

import asyncio
import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.envelope import worst_overshoot
from tests.support.hammer import Hammer
from tests.support.load import Load
from tests.support.processes import eventually, log_so_far, open_files, owners, resident_bytes
from tests.support.scripted import ScriptedBackend
from tests.support.service import Service, event, limits


@pytest.fixture
def backend():
    with ScriptedBackend() as backend:
        yield backend


def forwarding(backend: ScriptedBackend, workers: int = 1, **more: object) -> dict:
    proxy = {"without_upstream": "allow", "upstream": {"endpoint": backend.url, "timeout": "5s"}, **more}
    return {"proxy": proxy, "workers": workers}


def arrived_twice(backend: ScriptedBackend) -> list[str]:
    return [client for client, times in backend.arrived.items() if times > 1]


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def have_three_workers(cpro: Service) -> bool:
    """Whether there are three, and all serve."""
    return len(cpro.workers()) == 3 and all(open_files(pid) > 12 for pid in cpro.workers())


# --- reload


def test_many_reloads_under_load_drop_no_connection_and_no_request(service, backend):
    cpro = service(forwarding(backend, workers=2))
    load = Load(lambda: cpro.proxy, connections=16)

    def reload_again_and_again() -> None:
        for number in range(30):
            cpro.reload({**forwarding(backend, workers=2), **limits(publish=(number + 1, "1s"))})

    def hang_up_in_a_storm() -> None:
        for _ in range(30):
            cpro.process.send_signal(signal.SIGHUP)
            time.sleep(0.002)

    asyncio.run(load.run(2, (0.2, reload_again_and_again), (1.2, hang_up_in_a_storm)))
    assert load.answered > 500
    assert (load.wrong, load.broken, load.refused) == ([], [], 0)
    assert arrived_twice(backend) == []
    assert cpro.metric('cpro_config_reloads_total{outcome="ok"}') > 30


def test_reloads_leave_no_file_and_no_memory_behind(service, backend):
    cpro = service(forwarding(backend))
    (worker,) = cpro.workers()

    def reload_often(times: int) -> None:
        for _ in range(times):
            cpro.reload(forwarding(backend))
            assert cpro.post("rpc", event(method="m")) == (200, {"result": {"data": "c1"}})

    reload_often(30)
    memory, files = resident_bytes(worker), open_files(worker)
    own_memory, own_files = resident_bytes(cpro.process.pid), open_files(cpro.process.pid)
    reload_often(150)
    assert eventually(lambda: open_files(worker) <= files, 7), "connections of retired settings stay open"
    assert open_files(cpro.process.pid) <= own_files
    assert resident_bytes(worker) - memory < 3_000_000
    assert resident_bytes(cpro.process.pid) - own_memory < 3_000_000


def test_a_worker_that_starts_during_a_reload_serves_by_the_new_settings(service):
    cpro = service({"proxy": {"without_upstream": "allow", "secret": "old"}})
    (victim,) = cpro.workers()
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: cpro.workers() not in ([], [victim]))
    cpro.reload({"proxy": {"without_upstream": "allow", "secret": "new"}})  # the successor has its orders already
    assert eventually(lambda: cpro.post("publish", event(), {"X-Cpro-Secret": "new"})[0] == 200, 2)


# --- kill -9 of workers


def kill_workers_under_load(cpro: Service, backend: ScriptedBackend, seconds: float, pause_s: float) -> int:
    """Kill one worker after the other; the number of kills. Checks who loses what."""
    load = Load(lambda: cpro.proxy, connections=24)
    kills: list[tuple[float, float, set[int]]] = []

    def kill_again_and_again() -> None:
        until = time.monotonic() + seconds - 1
        while time.monotonic() < until:
            assert eventually(lambda: have_three_workers(cpro), 15)  # one that keeps dying young waits up to 5 s
            victim = random.choice(cpro.workers())
            os.kill(victim, signal.SIGSTOP)  # so that it accepts nobody after we have looked
            assert eventually(lambda victim=victim: is_stopped(victim))
            theirs = owners(cpro.proxy, [victim])
            at = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            time.sleep(pause_s)
            kills.append((at, time.monotonic(), set(theirs)))

    asyncio.run(load.run(seconds, (0.3, kill_again_and_again)))
    known = set().union(*(ports for _, _, ports in kills))
    assert load.answered > 200
    assert load.wrong == []
    assert load.refused == 0, "connects wait for the successor"
    assert arrived_twice(backend) == []
    assert {one.port for one in load.broken} <= known, "a connection of another worker is lost"
    for one in load.broken:
        assert any(began <= one.at <= ended + 0.2 for began, ended, _ in kills)
    return len(kills)


def test_workers_killed_under_load_take_only_their_own_connections_along(service, backend):
    cpro = service(forwarding(backend, workers=3))
    kills = kill_workers_under_load(cpro, backend, 3, 0.4)
    assert kills >= 2
    assert eventually(lambda: have_three_workers(cpro))
    messages = [line["message"] for line in log_so_far(cpro)]
    assert messages.count("worker died, starting it again") + messages.count("worker can't start") == kills


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_workers_killed_for_half_a_minute_take_only_their_own_connections_along(service, backend):
    assert kill_workers_under_load(service(forwarding(backend, workers=3)), backend, 30, 0.3) > 8


def test_idle_connections_of_other_workers_outlive_a_killed_one(service, backend):
    cpro = service(forwarding(backend, workers=3))
    load = Load(lambda: cpro.proxy, connections=40, pause_s=0.05, reconnect=False)
    lost: set[int] = set()

    def kill_one() -> None:
        whose = owners(cpro.proxy, cpro.workers())
        assert set(whose) >= load.ports
        victim = cpro.workers()[1]
        lost.update(port for port, pid in whose.items() if pid == victim)
        os.kill(victim, signal.SIGKILL)

    asyncio.run(load.run(1.5, (0.5, kill_one)))
    assert 0 < len(lost) < 40
    assert {one.port for one in load.broken} == lost
    assert load.wrong == []


@pytest.mark.slow
def test_reloads_and_kills_at_once_end_in_a_service_that_obeys(service, backend):
    cpro = service(forwarding(backend, workers=3))
    load = Load(lambda: cpro.proxy, connections=12)

    def hang_up() -> None:
        for _ in range(60):
            cpro.process.send_signal(signal.SIGHUP)
            time.sleep(0.03)

    def kill() -> None:
        for _ in range(12):
            time.sleep(0.15)
            with suppress(IndexError, ProcessLookupError):
                os.kill(random.choice(cpro.workers()), signal.SIGKILL)

    asyncio.run(load.run(2, (0, hang_up), (0, kill)))
    assert load.wrong == []
    assert arrived_twice(backend) == []
    assert eventually(lambda: have_three_workers(cpro), 15)
    cpro.reload(forwarding(backend, workers=3, secret="new"))
    assert {cpro.post("rpc", event(method="m"), {"X-Cpro-Secret": "new"})[0] for _ in range(30)} == {200}
    assert {cpro.post("rpc", event(method="m"))[0] for _ in range(30)} == {401}


# --- pauses


def test_while_a_worker_is_paused_the_others_serve_and_it_goes_on_afterwards(service, backend):
    cpro = service(forwarding(backend, workers=3))
    load = Load(lambda: cpro.proxy, connections=30)
    seen: dict[str, int] = {}

    def pause_one() -> None:
        victim = cpro.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        try:
            before = load.answered
            time.sleep(1)
            seen["meanwhile"] = load.answered - before
        finally:
            os.kill(victim, signal.SIGCONT)

    asyncio.run(load.run(1.8, (0.3, pause_one)))
    assert seen["meanwhile"] > 100
    assert (load.wrong, load.broken, load.refused) == ([], [], 0)
    assert cpro.metric("cpro_worker_restarts_total") == 0


def test_a_reload_during_a_pause_is_in_force_when_the_worker_goes_on(service):
    cpro = service({"proxy": {"without_upstream": "allow"}, "workers": 2})
    victim = cpro.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    try:
        cpro.write({"proxy": {"without_upstream": "allow", "secret": "new"}, "workers": 2})
        cpro.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
    finally:
        os.kill(victim, signal.SIGCONT)
    cpro.wait_for("reloaded")
    assert {cpro.post("publish", event())[0] for _ in range(30)} == {401}


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_paused_worker_for_ever(service):
    cpro = service({"workers": 2, "shutdown": {"timeout": "100ms"}})
    victim = cpro.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    assert cpro.stop() == 0
    assert time.monotonic() - began < 7
    assert not Path(f"/proc/{victim}").exists()


# --- kill -9 of the supervisor

RATE, BURST = 200, 200


def test_a_service_whose_supervisor_is_killed_starts_again_at_once_and_limits_hold(service):
    settings = {**limits(publish=(RATE, "1s")), "proxy": {"without_upstream": "allow"}, "workers": 3}
    cpro = service(settings)
    settings["proxy"]["address"], settings["http_api"] = cpro.proxy, {"address": cpro.api}
    hammer = Hammer(lambda: cpro.proxy, 48)
    starts: list[float] = []

    def kill_and_start() -> None:
        cpro.write(settings)
        for _ in range(2):
            cpro.process.kill()
            cpro.process.wait()
            began = time.monotonic()
            cpro.start()
            starts.append(time.monotonic() - began)
            time.sleep(0.6)

    asyncio.run(hammer.run(3, (0.8, kill_and_start)))
    assert len(starts) == 2
    assert max(starts) < 5
    assert worst_overshoot(hammer.admitted, BURST, RATE) <= 0
    assert len(hammer.admitted) > BURST + RATE


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_supervisor_killed_thirty_times_starts_again_every_time(service):
    settings = {"proxy": {"without_upstream": "allow"}, "workers": 3}
    cpro = service(settings)
    settings["proxy"]["address"], settings["http_api"] = cpro.proxy, {"address": cpro.api}
    stop = threading.Event()
    hammer = Hammer(lambda: cpro.proxy, 32)
    loader = threading.Thread(target=lambda: asyncio.run(hammer.run(1e9)))
    loader.start()
    try:
        for _ in range(30):
            cpro.process.kill()
            cpro.process.wait()
            cpro.write(settings)
            cpro.start()
    finally:
        hammer.until = 0
        stop.set()
        loader.join()
