"""Wires a worker's analytics: segments, journal, recorder, and what is counted of them.

Imported only where analytics is enabled.
"""

import asyncio
import logging
import os
from functools import partial

from cpro import logs
from cpro._fast.counters import Counters
from cpro._fast.journal import Journal, RowWriter
from cpro.analytics.recorder import Recorder
from cpro.analytics.schema import TABLES
from cpro.analytics.segments import Segments, Trouble, used_bytes
from cpro.clock import Seconds
from cpro.config.model import Settings
from cpro.doors.rows import EventRows
from cpro.limits.rules import channel_namespace, rpc_namespace
from cpro.metrics import Catalogue
from cpro.run.datadir import JOURNAL

log = logging.getLogger(__name__)

COUNT_EVERY_S = 1.0
MEASURE_EVERY_S = 2.0
MEASURER = 0
"""The worker that measures the journal of all."""


class Analytics:
    """One worker's. Make it inside the event loop; `close` after the last reply."""

    def __init__(self, started: Settings, number: int, counters: Counters, catalogue: Catalogue) -> None:
        """`started`: the settings that the service started with; `number` of the worker."""
        settings = started.clickhouse_analytics
        self._root = os.path.join(started.data_dir, JOURNAL)
        self._segments = Segments(
            self._root,
            number,
            workers=started.workers or len(os.sched_getaffinity(0)),
            max_bytes=settings.max_journal_size,
            sync_interval_s=settings.sync_interval.seconds,
            report=_report,
        )
        journal = self._segments.journal
        appends = {table.number: RowWriter(journal, table.number, table.kinds).append for table in TABLES}
        self._recorder = Recorder(appends, started.node.name or os.uname().nodename, Seconds())
        self._meter = Meter(journal, counters, catalogue)
        self._set_bytes = partial(counters.set, catalogue.journal_bytes.first)
        self._tasks = [asyncio.create_task(self._count())]
        if number == MEASURER:
            self._tasks.append(asyncio.create_task(self._measure()))
        self._segments.open()
        self._segments.start()

    def rows(self, settings: Settings) -> EventRows:
        """What the proxy door records by these settings, which are in force from now on."""
        recording = self._recorder.recording(
            settings.clickhouse_analytics.export,
            partial(channel_namespace, names=settings.channel),
            partial(rpc_namespace, names=settings.rpc),
        )
        return EventRows(recording)

    async def close(self) -> None:
        """Seal the journal and write it to the disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._meter.count()
        await asyncio.get_running_loop().run_in_executor(None, self._segments.close)

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(COUNT_EVERY_S)
            self._meter.count()

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._set_bytes(await loop.run_in_executor(None, used_bytes, self._root))
            await asyncio.sleep(MEASURE_EVERY_S)


class Meter:
    """Brings a journal's own counts into the metrics: rows are many, and who asks for metrics is one."""

    def __init__(self, journal: Journal, counters: Counters, catalogue: Catalogue) -> None:
        self._journal = journal
        self._add = counters.add
        self._rows = [(table.number, catalogue.journal_rows.slot(table.name)) for table in TABLES]
        self._dropped = [(table.number, catalogue.journal_dropped.slot(table.name)) for table in TABLES]
        self._seen = [0] * len(journal.appended), [0] * len(journal.dropped)

    def count(self) -> None:
        """What came since the last time."""
        before, self._seen = self._seen, (self._journal.appended, self._journal.dropped)
        for slots, then, now in zip((self._rows, self._dropped), before, self._seen, strict=True):
            for table, slot in slots:
                self._add(slot, now[table] - then[table])


def _report(what: Trouble, words: str) -> None:
    """Told once per change of state, by threads."""
    if words:
        log.error("journal in trouble", extra=logs.fields(trouble=what.value, reason=words))
    else:
        log.info("journal recovered", extra=logs.fields(trouble=what.value))
