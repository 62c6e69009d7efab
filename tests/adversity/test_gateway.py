"""The gateway among the dying, the slow and the many: whoever is well behaved doesn't notice."""

import asyncio
import base64
import json
import os
import signal
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection

import pytest

from cpro._fast.wsframe import TEXT, build_frame
from cpro.doors.gateway.far import ANSWER_WAIT_S
from tests.support.farside import FarSide, Visitor, obliging
from tests.support.processes import eventually, open_files, owners, resident_bytes
from tests.support.service import Service
from tests.support.sockets import ClosedError, Socket, many

PATIENCE_S = 15.0
MIB = 1 << 20


@pytest.fixture
def far():
    with FarSide() as far:
        yield far


@pytest.fixture
def gateway(service: Callable[..., Service], far: FarSide) -> Callable[..., Service]:
    """Start one in front of the far side."""

    def start(**settings: object) -> Service:
        gateway = {"enabled": True, "address": "127.0.0.1:0", "centrifugo": [far.base]}
        return service({"gateway": gateway, "shutdown": {"timeout": "1s"}, **settings})

    return start


def url_of(cpro: Service) -> str:
    return f"ws://{cpro.gateway}/connection/websocket"


async def soon(check: Callable[[], object]) -> None:
    assert await asyncio.to_thread(eventually, check, PATIENCE_S), "it did not happen"


async def standstill(count: Callable[[], int]) -> None:
    """Wait until something that counts has begun and stays where it is."""
    began, stays = count(), 0
    async with asyncio.timeout(PATIENCE_S):
        last = began
        while stays < 10:
            await asyncio.sleep(0.05)
            stays = stays + 1 if count() == last != began else 0
            last = count()


async def works(socket: Socket) -> bool:
    return "publish" in await socket.ask("publish", channel="news", data=1)


# --- those who die


def test_a_killed_worker_takes_its_own_clients_with_it_and_nobody_else(gateway, far):
    cpro = gateway(workers=2)

    async def run():
        async with many(url_of(cpro), 40) as clients:
            workers = cpro.workers()[:2]
            of_worker = owners(cpro.gateway, workers)
            by_worker: dict[int, list[Socket]] = {pid: [] for pid in workers}
            for one in clients:
                by_worker[of_worker[one.writer.get_extra_info("sockname")[1]]].append(one)
            killed, other = workers
            assert by_worker[killed]
            assert by_worker[other]
            os.kill(killed, signal.SIGKILL)
            for one in by_worker[killed]:
                assert (await one.until_closed()).code == 0
            await soon(lambda: len(far.visitors) == len(by_worker[other]))
            assert all([await works(one) for one in by_worker[other]])
            async with many(url_of(cpro), len(by_worker[killed])) as again:
                assert all([await works(one) for one in again])
                await soon(lambda: cpro.metric('cpro_gateway_connections{transport="websocket"}') == 40)
            await soon(lambda: len(cpro.workers()) >= 2 and killed not in cpro.workers())

    asyncio.run(run())


def test_a_killed_service_leaves_no_connection_to_centrifugo(gateway, far):
    cpro = gateway(workers=2)

    async def run():
        async with many(url_of(cpro), 20) as clients:
            assert len(far.visitors) == 20
            cpro.kill_all()
            for one in clients:
                assert (await one.until_closed()).code == 0
            await soon(lambda: not far.visitors)

    asyncio.run(run())


def test_clients_hear_how_centrifugo_ended_their_connection_and_its_files_are_closed(gateway, far):
    cpro = gateway()
    (worker,) = cpro.workers()[:1]

    async def run():
        before = open_files(worker)
        async with many(url_of(cpro), 20) as clients:
            far.do(lambda: [one.close(3001, b"shutdown") for one in list(far.visitors)])
            for one in clients:
                closed = await one.until_closed()
                assert (closed.code, closed.reason) == (3001, "shutdown")
        await soon(lambda: open_files(worker) <= before)

    asyncio.run(run())


def test_an_upgrade_is_answered_502_while_centrifugo_is_away(gateway, far):
    cpro = gateway()
    far.__exit__()

    async def run():
        for _ in range(3):
            with pytest.raises(ClosedError) as closed:
                await Socket.open(url_of(cpro))
            assert closed.value.code == 502

    asyncio.run(run())


# --- those who are slow


def test_a_centrifugo_that_never_answers_holds_nobody_for_ever(service):
    """Of every kind of request, at once: it takes as long as a client has to wait."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections, nobody reads them
        base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        gateway = {"enabled": True, "address": "127.0.0.1:0", "centrifugo": [base], "pass_unknown": True}
        cpro = service({"gateway": gateway, "shutdown": {"timeout": "1s"}})
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        asked = [
            ("/connection/websocket", upgrade),
            ("/connection/uni_websocket", upgrade),
            ("/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D", {}),
            ("/connection/uni_sse?cf_connect=%7B%7D", {}),
            ("/some/page", {}),
        ]

        def status_of(path: str, headers: dict[str, str]) -> int:
            connection = HTTPConnection(cpro.gateway, timeout=2 * ANSWER_WAIT_S)
            with closing(connection):
                connection.request("GET", path, headers=headers)
                return connection.getresponse().status

        with ThreadPoolExecutor(len(asked)) as clients:
            assert list(clients.map(status_of, *zip(*asked, strict=True))) == [504] * len(asked)


def test_clients_that_send_a_byte_at_a_time_are_understood_and_hold_nobody_up(gateway, far):
    cpro = gateway()

    async def trickle(socket: Socket, number: int) -> None:
        for byte in build_frame(TEXT, b'{"id":77,"publish":{"channel":"c%d","data":{}}}' % number, mask_key=0x01020304):
            socket.writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        assert await socket.reply(77) == {"id": 77, "publish": {}}

    async def run():
        async with many(url_of(cpro), 10) as slow, many(url_of(cpro), 1) as (quick,):
            slowly = [asyncio.create_task(trickle(one, number)) for number, one in enumerate(slow)]
            count = 0
            while not all(one.done() for one in slowly):
                assert await works(quick)
                count += 1
            await asyncio.gather(*slowly)
            assert count > 10

            arrived = [one.messages[-1] for one in far.visitors]
            assert all(any(b'"c%d"' % number in message for message in arrived) for number in range(10))

    asyncio.run(run())


class Flood:
    """Pushes so many messages of 10 kB to a visitor, no faster than it takes them."""

    def __init__(self, visitor: Visitor, count: int) -> None:
        self._visitor = visitor
        self.count = count
        self.sent = 0
        visitor.on_room = self.pump

    def pump(self) -> None:
        while self.sent < self.count and not self._visitor.is_full:
            self._visitor.say({"push": {"channel": "news", "pub": {"data": self.sent, "info": "x" * 10_000}}})
            self.sent += 1


def test_what_a_client_does_not_read_waits_at_centrifugo_and_nothing_of_it_is_lost(gateway, far):
    cpro = gateway()
    (worker,) = cpro.workers()[:1]
    floods: list[Flood] = []

    def script(visitor: Visitor, payload: bytes) -> None:
        if b'"rpc"' in payload:
            floods.append(Flood(visitor, 5000))
            floods[-1].pump()
        else:
            obliging(visitor, payload)

    far.script = script

    async def run():
        async with many(url_of(cpro), 2) as (lazy, other):
            before = resident_bytes(worker)
            lazy.writer.transport.pause_reading()
            lazy.say({"id": 50, "rpc": {"method": "flood"}})
            await standstill(lambda: floods[0].sent if floods else 0)
            assert floods[0].sent < floods[0].count
            assert resident_bytes(worker) - before < 8 * MIB
            assert await works(other)
            lazy.writer.transport.resume_reading()
            numbers = [push["pub"]["data"] async for push in pushes(lazy, 5000, "news")]
            assert numbers == list(range(5000))

    asyncio.run(run())


async def pushes(socket: Socket, count: int, channel: str):
    found = 0
    while found < count:
        push = await socket.push()
        if "info" in push["pub"]:
            found += 1
            yield push


def test_what_centrifugo_does_not_read_waits_at_the_client_and_nothing_of_it_is_lost(gateway, far):
    cpro = gateway()
    (worker,) = cpro.workers()[:1]
    sent = 3000

    async def run():
        async with many(url_of(cpro), 2) as (flooder, other):
            victim = next(one for one in far.visitors if b"user-0" in token_payload(one))
            before = resident_bytes(worker)
            far.do(victim.transport.pause_reading)
            numbers = iter(range(sent))
            task = asyncio.create_task(flood(flooder, numbers))
            await standstill(numbers.__length_hint__)
            assert numbers.__length_hint__()
            assert resident_bytes(worker) - before < 8 * MIB
            assert await works(other)
            far.do(victim.transport.resume_reading)
            await task
            await soon(lambda: len(victim.messages) == 1 + sent)
            assert [json.loads(one)["publish"]["data"] for one in victim.messages[1:]] == list(range(sent))

    asyncio.run(run())


def token_payload(visitor: Visitor) -> bytes:
    """The claims of the token that it was connected with."""
    claims = visitor.messages[0].partition(b'"token": "')[2].split(b".")[1]
    return base64.urlsafe_b64decode(claims + b"==")


async def flood(socket: Socket, numbers: Iterable[int]) -> None:
    for number in numbers:
        socket.say({"id": 100 + number, "publish": {"channel": "c", "data": number, "fill": "x" * 10_000}})
        await socket.writer.drain()


# --- those who only half leave


def test_what_a_client_sent_before_it_closed_its_half_is_carried_out(gateway, far):
    cpro = gateway()

    async def run():
        async with many(url_of(cpro), 1) as (client,):
            (visitor,) = far.visitors
            client.say({"id": 9, "publish": {"channel": "last", "data": {}}})
            client.writer.write_eof()
            assert (await client.until_closed()).code == 0
            await soon(lambda: not far.visitors)
            assert b'"last"' in visitor.messages[-1]

    asyncio.run(run())


def test_a_half_that_centrifugo_closes_ends_both(gateway, far):
    cpro = gateway()

    async def run():
        async with many(url_of(cpro), 1) as (client,):
            far.do(lambda: [one.transport.write_eof() for one in far.visitors])
            assert (await client.until_closed()).code == 0
            await soon(lambda: not far.visitors)

    asyncio.run(run())


def test_clients_that_vanish_without_a_word_leave_nothing_behind(gateway, far):
    cpro = gateway()
    (worker,) = cpro.workers()[:1]

    async def run():
        files = open_files(worker)
        for _ in range(3):
            async with many(url_of(cpro), 50) as clients:
                for number, one in enumerate(clients):
                    one.say({"id": 60, "publish": {"channel": "c", "data": {}}})
                    if number % 2:
                        one.writer.transport.abort()
        await soon(lambda: not far.visitors)
        await soon(lambda: open_files(worker) <= files)
        await soon(lambda: cpro.metric('cpro_gateway_connections{transport="websocket"}') == 0)

    asyncio.run(run())
