"""Rows of analytics: what each costs the worker that answers, into a real journal; and a publish at the door with all.

The journal goes on in the same few segments, made and populated by its own threads as in a worker.
"""

import shutil
from functools import partial

import pytest

from benchmarks.micro.conftest import REQUEST
from cpro._fast.http1 import RequestParser
from cpro._fast.journal import RowWriter
from cpro.analytics.recorder import Recorder
from cpro.analytics.schema import TABLES
from cpro.analytics.segments import Segments
from cpro.clock import Seconds, boot_ns
from cpro.config.model import (
    Channel,
    ConnectionsExport,
    Exports,
    OperationsExport,
    Proxy,
    PublicationsExport,
    Rpc,
    SubscriptionsExport,
)
from cpro.doors.answers import user_of
from cpro.doors.events import read_plainly
from cpro.doors.proxy import ProxyDoor
from cpro.doors.rows import EventRows
from cpro.limits.rules import channel_namespace, rpc_namespace
from cpro.operation import EMPTY_RESULT, Operation, Verdict

CLIENT = "9336a229-2400-4ebc-8c50-000000000042"
EVERYTHING = Exports(
    connections=ConnectionsExport(enabled=True),
    subscriptions=SubscriptionsExport(enabled=True),
    operations=OperationsExport(enabled=True),
    publications=PublicationsExport(enabled=True),
)


@pytest.fixture
def recording(tmp_path):
    segments = Segments(
        str(tmp_path / "journal"), 0, workers=1, max_bytes=4 << 30, sync_interval_s=1.0, report=lambda *trouble: None
    )
    segments.open()
    segments.start()
    journal = segments.journal
    appends = {table.number: RowWriter(journal, table.number, table.kinds).append for table in TABLES}
    yield Recorder(appends, "node-1", Seconds()).recording(
        EVERYTHING, partial(channel_namespace, names=Channel()), partial(rpc_namespace, names=Rpc())
    )
    segments.close()
    shutil.rmtree(tmp_path)
    assert sum(journal.dropped) == 0


def test_record_an_operation(measure, recording):
    operation = Operation("publish", CLIENT, "100042", "chat:room42", started_ns=boot_ns())

    def run(calls, record=recording.operation):
        for _ in range(calls):
            record(operation, Verdict.ADMITTED, EMPTY_RESULT, 12_345)

    measure(run)


def test_record_a_subscription(measure, recording):
    def run(calls, record=recording.subscription):
        for _ in range(calls):
            record(CLIENT, "100042", "chat:room42", 0)

    measure(run)


def test_record_a_publication(measure, recording):
    def run(calls, record=recording.publication):
        for _ in range(calls):
            record("chat:room42", "client", 43, CLIENT, "100042", 0)

    measure(run)


@pytest.mark.parametrize("analytics", ["none", "operations", "operations_and_publications"])
def test_door_and_rows(measure, recording, analytics):
    """A publish from a parsed request to its Reply, without limits: the difference is what analytics costs."""
    wanted = {"operation": recording.operation} if analytics == "operations" else {}
    rows = None if analytics == "none" else EventRows(recording if not wanted else type(recording)(**wanted))
    door = ProxyDoor(lambda operation, now_ns: Verdict.ADMITTED, lambda kind: lambda verdict, duration_ns: None)
    door.configure(
        Proxy(without_upstream="allow"),
        {},
        user_of,
        by_address=False,
        interests=[rows.told] if rows else [],
        reading_of=rows.reading_of if rows else read_plainly,
    )
    parser = RequestParser(65536, 1 << 20)
    parser.feed(REQUEST)
    request = parser.next_request()

    class Connection:
        answer = None

    def run(calls, call=door, connection=Connection()):  # noqa: B008
        now_ns = boot_ns()
        for _ in range(calls):
            reply = call(request, connection, now_ns)
        return reply

    assert measure(run) is EMPTY_RESULT
