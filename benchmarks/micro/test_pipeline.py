"""Everything cpro does to a publish but the sockets: the door alone, and the connection around it."""

import os

import pytest

from benchmarks.micro.conftest import REQUEST
from cpro._fast.buckets import BucketTable
from cpro._fast.connection import Connection
from cpro._fast.counters import CounterFile, Recorder, Tally
from cpro._fast.http1 import RequestParser
from cpro.clock import boot_ns
from cpro.config.load import load
from cpro.doors.answers import user_of
from cpro.doors.proxy import ProxyDoor
from cpro.limits.gate import Gate
from cpro.limits.rules import compile_rules
from cpro.metrics import VERDICTS, Catalogue

NEVER_REACHED = "[{interval: 1s, rate: 1000000}]"
REACHED_AT_ONCE = "[{interval: 24h, rate: 1}]"
IDS = ("admitted", "refused")


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


@pytest.fixture
def door(request, tmp_path):
    """The proxy door wired as a worker wires it: gate, table and counters; three blocks limit publishes."""
    file = tmp_path / "cpro.yaml"
    text = "proxy: {without_upstream: allow}\nclient:\n  rate_limit:\n"
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
    proxy = ProxyDoor(gate.charge, recorder)
    proxy.configure(settings.proxy, {}, user_of, by_address=False)
    yield proxy
    table.close()
    counter_file.close()


@pytest.mark.parametrize(("door", "error"), [("admitted", 0), ("refused", 111)], indirect=["door"], ids=IDS)
def test_door(measure, door, error):
    """A parsed request to its Reply: decode, three blocks, counters; two clock reads among it."""
    parser = RequestParser(65536, 1 << 20)
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


@pytest.mark.parametrize(("door", "said"), [("admitted", b'"result"'), ("refused", b"111")], indirect=["door"], ids=IDS)
def test_connection(measure, door, said):
    """Bytes in, bytes out: what uvloop calls for a publish, with a transport that sends nowhere."""
    connection = Connection(Owner(door))
    transport = Transport()
    connection.connection_made(transport)

    def run(calls, feed=connection.data_received):
        for _ in range(calls):
            feed(REQUEST)

    connection.data_received(REQUEST)
    measure(run)
    assert said in transport.last
