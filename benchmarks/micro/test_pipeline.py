"""Everything cpro does to a publish but the sockets: the door alone, and the connection around it."""

import asyncio
import os

import pytest
import uvloop

from benchmarks.micro.conftest import REQUEST
from cpro._fast.buckets import BucketTable
from cpro._fast.connection import Connection
from cpro._fast.counters import CounterFile, Recorder, Tally
from cpro._fast.http1 import RequestParser
from cpro.clock import boot_ns
from cpro.config.load import load
from cpro.doors.answers import user_of
from cpro.doors.proxy import ProxyDoor
from cpro.doors.upstream import DROPPED_HEADERS, build_forwards
from cpro.http.client import HttpClient
from cpro.limits.gate import Gate
from cpro.limits.rules import compile_rules
from cpro.metrics import UPSTREAM_OUTCOMES, VERDICTS, Catalogue

NEVER_REACHED = "[{interval: 1s, rate: 1000000}]"
REACHED_AT_ONCE = "[{interval: 24h, rate: 1}]"
IDS = ("admitted", "refused")
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n" + b'{"result":{}}'


class Owner:
    """A server without a loop."""

    max_body_bytes = 1 << 20
    clock = staticmethod(boot_ns)

    def __init__(self, handler):
        self.handler = handler
        self.connections = set()

    def watch(self, connection, limit_s): ...

    def unwatch(self, connection): ...

    def report(self, bug):
        raise bug


class Transport:
    """Takes what is written, and forgets all but the last of it."""

    def write(self, data):
        self.last = data

    def is_closing(self):
        return False

    def get_write_buffer_size(self):
        return 0

    def abort(self): ...


class Loop:
    """uvloop's, but its connections lead nowhere."""

    def __init__(self, loop):
        self._loop = loop
        self.dialled = []

    def __getattr__(self, name):
        return getattr(self._loop, name)

    async def create_connection(self, factory, *where, **how):
        self.dialled.append(factory())
        self.dialled[-1].connection_made(Transport())


@pytest.fixture
def wired(request, tmp_path):
    """The proxy door wired as a worker wires it: gate, table and counters; three blocks limit publishes.

    Together with the loop of its client, and what runs that.
    """
    file = tmp_path / "cpro.yaml"
    upstream = "upstream: {endpoint: 'http://127.0.0.1:3000/centrifugo'}" if request.param == "forwarded" else ""
    text = f"proxy: {{without_upstream: allow, {upstream}}}\nclient:\n  rate_limit:\n"
    for block in ("client_command", "user_command", "redis_user_command"):
        buckets = REACHED_AT_ONCE if request.param == "refused" and block == "user_command" else NEVER_REACHED
        text += f"    {block}: {{enabled: true, publish: {{enabled: true, buckets: {buckets}}}}}\n"
    file.write_text(text)
    settings = load(str(file), {}).settings
    now_ns = boot_ns()
    table = BucketTable.create_or_open(str(tmp_path / "table"), 100_000, bytes(16), now_ns)
    catalogue = Catalogue()
    counters_path = str(tmp_path / "counters")
    os.close(os.open(counters_path, os.O_CREAT | os.O_RDWR, 0o600))
    counter_file = CounterFile.create(counters_path, 1, catalogue.slots)
    counters = counter_file.block(0)

    def recorder(kind):
        first = catalogue.operations.slot("proxy", kind, VERDICTS[0])
        return Recorder(counters, first, catalogue.durations.slot("proxy", kind))

    gate = Gate(table, Tally(counters, catalogue.limit_checks.first))
    gate.configure(
        settings.client.rate_limit, compile_rules(settings.client.rate_limit, settings.channel, settings.rpc)
    )

    def counter(event):
        first = catalogue.upstream.slot(event, UPSTREAM_OUTCOMES[0])
        return Recorder(counters, first, catalogue.upstream_durations.slot(event))

    proxy = ProxyDoor(gate.charge, recorder)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = Loop(runner.get_loop())
        client = HttpClient(loop, timeout_s=60, connect_timeout_s=1, max_reply_bytes=1 << 20, drop=DROPPED_HEADERS)
        forwards = build_forwards(settings.proxy.upstream, client, counter)
        proxy.configure(settings.proxy, forwards, user_of, by_address=False)
        yield proxy, loop, runner
        runner.run(client.close(0))
    table.close()
    counter_file.close()


@pytest.mark.parametrize(("wired", "error"), [("admitted", 0), ("refused", 111)], indirect=["wired"], ids=IDS)
def test_door(measure, wired, error):
    """A parsed request to its Reply: decode, three blocks, counters; two clock reads among it."""
    parser = RequestParser(65536, 1 << 20)
    door, _, _ = wired
    parser.feed(REQUEST)
    request = parser.next_request()
    connection = Connection(Owner(door))

    now_ns = boot_ns()

    def run(calls, call=door, now_ns=now_ns):
        for _ in range(calls):
            reply = call(request, connection, now_ns)
        return reply

    call_once = door(request, connection, boot_ns())
    assert call_once.error == 0
    assert measure(run).error == error


@pytest.mark.parametrize(
    ("wired", "said"), [("admitted", b'"result"'), ("refused", b"111")], indirect=["wired"], ids=IDS
)
def test_connection(measure, wired, said):
    """Bytes in, bytes out: what uvloop calls for a publish, with a transport that sends nowhere."""
    door, _, _ = wired
    connection = Connection(Owner(door))
    transport = Transport()
    connection.connection_made(transport)

    def run(calls, feed=connection.data_received):
        for _ in range(calls):
            feed(REQUEST)

    connection.data_received(REQUEST)
    measure(run)
    assert said in transport.last


@pytest.mark.parametrize("wired", ["forwarded"], indirect=True)
def test_connection_there_and_back(measure, wired):
    """The same for a publish that goes to the backend, whose answer comes back on a connection that is kept."""
    door, loop, runner = wired
    connection = Connection(Owner(door))
    transport = Transport()
    connection.connection_made(transport)

    async def dial():
        connection.data_received(REQUEST)
        while not loop.dialled:
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    runner.run(dial())
    (carrier,) = loop.dialled
    carrier.data_received(RESPONSE)
    assert b'"result"' in transport.last

    def run(calls, ask=connection.data_received, answer=carrier.data_received):
        for _ in range(calls):
            ask(REQUEST)
            answer(RESPONSE)

    transport.last = b""
    measure(run)
    assert b'"result"' in transport.last
