"""Floods of bad requests and an hour's worth of good ones: the log stays short, the memory flat."""

import asyncio
import json
import os
import signal

import pytest

from tests.support.load import Load
from tests.support.processes import log_so_far, open_files, resident_bytes
from tests.support.scripted import ScriptedBackend
from tests.support.service import Service, event, limits
from tests.support.wire import Wire, post

ALLOW = {"proxy": {"without_upstream": "allow"}}
BATCH = 100


def after_ready(cpro: Service) -> list[dict]:
    """What was logged since the service was ready."""
    ready = [line["message"] for line in log_so_far(cpro)].index("ready")
    return cpro.log[ready + 1 :]


def statuses(wire: Wire, requests: list[bytes], times: int) -> dict[int, int]:
    """Send all the requests that many times, in batches; how many answers of each status came."""
    count: dict[int, int] = {}
    for _ in range(times):
        for first in range(0, len(requests), BATCH):
            batch = requests[first : first + BATCH]
            wire.send(b"".join(batch))
            for _ in batch:
                status = wire.answer()[0]
                count[status] = count.get(status, 0) + 1
    return count


def test_thousands_of_bad_events_are_answered_and_logged_once_for_each_kind(service):
    cpro = service(ALLOW)
    kinds = ("publish", "rpc", "connect", "refresh")
    bad = [post(b'{"client":7}', f"/centrifugo/{kind}".encode()) for kind in kinds] * 25
    with Wire(cpro.proxy) as wire:
        assert statuses(wire, bad, 50) == {200: 3750, 502: 1250}
    lines = after_ready(cpro)
    assert sorted(line["event"] for line in lines) == sorted(kinds)
    for kind in kinds:
        assert cpro.metric(f'cpro_operations_total{{door="proxy",op="{kind}",verdict="invalid"}}') == 1250


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_bad_events_are_logged_again_after_a_minute_with_how_many_there_were(service):
    cpro = service(ALLOW)
    bad = [post(b"{}", b"/centrifugo/publish")] * BATCH
    with Wire(cpro.proxy) as wire:
        for _ in range(62):
            statuses(wire, bad, 1)
            asyncio.run(asyncio.sleep(1))
    first, second = after_ready(cpro)
    assert first["times"] == 1
    assert 5900 <= second["times"] <= 6100


def test_thousands_of_wrong_secrets_are_401_and_cost_nothing(service):
    cpro = service({"proxy": {"without_upstream": "allow", "secret": "right"}})
    (worker,) = cpro.workers()
    secrets = (b"wrong", b"", b"righ", b"\xff" * 99)
    wrong = [post(b"{}"), *(post(b"{}", headers=b"X-Cpro-Secret: %b\r\n" % secret) for secret in secrets)]
    with Wire(cpro.proxy) as wire:
        statuses(wire, wrong, 200)
        memory = resident_bytes(worker)
        assert statuses(wire, wrong, 1000) == {401: 5000}
        assert resident_bytes(worker) - memory < 1_000_000
    assert cpro.post("publish", event(), {"X-Cpro-Secret": "right"}) == (200, {"result": {}})
    assert after_ready(cpro) == []


def test_thousands_of_malformed_requests_are_not_logged_and_leave_nothing_open(service):
    cpro = service(ALLOW)
    (worker,) = cpro.workers()
    files = open_files(worker)
    for number in range(2000):
        with Wire(cpro.proxy) as wire:
            assert wire.send(b"GET / HTTP/1.1\r\nHost : %d\r\n\r\n" % number).answer()[0] == 400
    assert after_ready(cpro) == []
    assert open_files(worker) <= files + 1


# --- an hour in a moment


def of_many_users(number: int) -> list[bytes]:
    bodies = (json.dumps(event(user=f"user-{user}", client=f"client-{user}", channel="news")) for user in range(number))
    return [post(body.encode()) for body in bodies]


def growth(cpro: Service, requests: list[bytes], times: int) -> int:
    """By how many bytes the worker grows while it answers all requests that many times, after a warm-up."""
    (worker,) = cpro.workers()
    with Wire(cpro.proxy) as wire:
        statuses(wire, requests, 5)
        memory = resident_bytes(worker)
        assert statuses(wire, requests, times) == {200: len(requests) * times}
        return resident_bytes(worker) - memory


def limited(rate: int) -> dict:
    return {**ALLOW, **limits(publish=(rate, "1s"), total=(2 * rate, "1s"))}


def test_50_000_requests_leave_memory_flat(service):
    cpro = service(limited(5))
    assert growth(cpro, of_many_users(2000), 25) < 1_000_000
    assert cpro.metric('cpro_operations_total{door="proxy",op="publish",verdict="refused"}') > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_requests_leave_memory_flat(service):
    assert growth(service(limited(5)), of_many_users(10_000), 100) < 1_000_000


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_half_a_minute_of_forwarded_requests_with_reloads_leaves_memory_flat(service):
    with ScriptedBackend() as backend:
        settings = {"proxy": {"upstream": {"endpoint": backend.url, "timeout": "5s"}}}
        cpro = service(settings)
        (worker,) = cpro.workers()
        load = Load(lambda: cpro.proxy, connections=16)
        memory: list[int] = []

        def look() -> None:
            cpro.process.send_signal(signal.SIGHUP)
            memory.append(resident_bytes(worker))

        asyncio.run(load.run(31, *((float(at), look) for at in range(5, 31))))
    assert (load.wrong, load.broken) == ([], [])
    assert load.answered > 20_000
    assert max(memory[-3:]) - max(memory[:3]) < 1_500_000
    assert os.path.exists(f"/proc/{worker}")
