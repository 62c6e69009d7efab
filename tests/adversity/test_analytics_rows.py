"""Whatever happens to workers under load: what was answered has its one row, and the row says what was answered."""

import asyncio
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.support.backend import Backend
from tests.support.processes import eventually
from tests.support.rows import analytics, rows_of
from tests.support.service import REFUSED, Service, event, limits
from tests.support.wire import post

ROUNDS = 10
CALLERS = 8


class Publishers:
    """Publish over and over, each time as another client, and know what each was answered."""

    def __init__(self, cpro: Service):
        self.cpro = cpro
        self.is_over = False
        self.asked: Counter[str] = Counter()
        self.errors: dict[str, int] = {}
        """By client, of those that were answered: the code, 0 for none."""

    async def publish(self, number: int) -> None:
        turn = 0
        while not self.is_over:
            try:
                host, port = self.cpro.proxy.rsplit(":", 1)
                reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.01)
                continue
            with suppress(OSError, EOFError):
                while not self.is_over:
                    turn += 1
                    await self._ask(reader, writer, f"{number}-{turn}")
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str) -> None:
        self.asked[client] += 1
        writer.write(post(json.dumps(event(client=client, channel="c")).encode()))
        head = await reader.readuntil(b"\r\n\r\n")
        answer = json.loads(await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head)[1])))
        assert answer in ({"result": {}}, REFUSED)
        self.errors[client] = 111 if answer == REFUSED else 0

    def go_on(self, publishes: int) -> None:
        """For what happens meanwhile: let so many more be answered."""
        enough = len(self.errors) + publishes
        assert eventually(lambda: len(self.errors) >= enough)

    def check(self) -> None:
        """Every answer has its one row; a request without an answer has one at most."""
        rows = rows_of(self.cpro)
        times = Counter(row["client"] for row in rows["operations"])
        assert [client for client in self.errors if times[client] != 1] == []
        assert [client for client in times if times[client] > self.asked[client]] == []
        recorded = {row["client"]: row["error"] for row in rows["operations"]}
        assert {client: recorded[client] for client in self.errors} == self.errors
        published = Counter(row["client"] for row in rows["publications"])
        assert max(published.values()) == 1
        assert {client for client, error in self.errors.items() if not error} <= set(published)
        assert not [client for client, error in self.errors.items() if error and client in published]


def load(cpro: Service, meanwhile: Callable[[Publishers], None]) -> Publishers:
    """Under way until `meanwhile`, in a thread of its own, is over."""
    publishers = Publishers(cpro)

    async def run() -> None:
        callers = [asyncio.create_task(publishers.publish(number)) for number in range(CALLERS)]
        try:
            await asyncio.to_thread(meanwhile, publishers)
        finally:
            publishers.is_over = True
            await asyncio.gather(*callers)

    asyncio.run(run())
    return publishers


def settings(**more: object) -> dict:
    return {**analytics(), "workers": 2, "proxy": {"without_upstream": "allow"}, **more}


def kill_a_worker(cpro: Service) -> None:
    workers = []
    for pid in cpro.workers():
        with suppress(FileNotFoundError):
            if b"cpro.run.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                workers.append(pid)
    if workers:
        with suppress(ProcessLookupError):
            os.kill(random.choice(workers), signal.SIGKILL)


def test_workers_that_are_killed(service):
    cpro = service(settings(**limits(publish=(40, "1m"))))

    def kill_again_and_again(publishers: Publishers) -> None:
        for _ in range(ROUNDS):
            publishers.go_on(random.randrange(10, 200))
            kill_a_worker(cpro)
        publishers.go_on(100)

    publishers = load(cpro, kill_again_and_again)
    publishers.check()
    assert set(publishers.errors.values()) == {0, 111}


def test_the_whole_service_killed_at_once(service):
    cpro = service(settings())

    def kill(publishers: Publishers) -> None:
        publishers.go_on(random.randrange(50, 1000))
        cpro.kill_all()

    publishers = load(cpro, kill)
    publishers.check()
    before = len(rows_of(cpro)["operations"])
    cpro.start()
    cpro.post("publish", event(client="after", channel="c"))
    assert len(rows_of(cpro)["operations"]) == before + 1


def test_reloads_in_between(service):
    cpro = service(settings())

    def reload_again_and_again(publishers: Publishers) -> None:
        for number in range(10):
            publishers.go_on(50)
            cpro.reload(settings(**limits(publish=(1000 + number, "1s"))))

    load(cpro, reload_again_and_again).check()


def test_a_stop_that_waits_for_answers(service):
    answered = []

    def answer_late(received) -> dict:
        time.sleep(0.5)
        answered.append(received.json["client"])
        return {"result": {}}

    with Backend(answer_late) as backend:
        upstream = {"endpoint": backend.url, "timeout": "20s"}
        cpro = service(settings(proxy={"upstream": upstream}, shutdown={"timeout": "20s"}))

        async def run() -> list:
            asking = [
                asyncio.create_task(asyncio.to_thread(cpro.post, "publish", event(client=f"c{number}", channel="c")))
                for number in range(6)
            ]
            while len(backend.received) < len(asking):
                await asyncio.sleep(0.01)
            cpro.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*asking)

        assert asyncio.run(run()) == [(200, {"result": {}})] * 6
        assert cpro.process.wait(30) == 0
    assert sorted(row["client"] for row in rows_of(cpro)["publications"]) == sorted(answered)
    assert len(answered) == 6
