"""The analyst process: takes rows from the journal to all sinks, hosts the embedded ClickHouse, answers queries.

One per service. It opens nothing before it is ready, so that a ClickHouse that is away keeps nobody from starting, and
ends by `os._exit`: a sink or a query that hangs must not hold it, and the engine has nothing left to do.
"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection as Channel
from pathlib import Path
from typing import Any

import uvloop

from cpro import logs
from cpro._fast.counters import CounterFile, Counters
from cpro.analytics.clickhouse import sink_of
from cpro.analytics.query import Format, QueryServer
from cpro.analytics.reads import reader_of
from cpro.analytics.shipper import Shipper
from cpro.analytics.sinks import Flush
from cpro.config.model import Export, Settings
from cpro.errors import CproError, StartError
from cpro.extension import Sink
from cpro.metrics import Catalogue
from cpro.run.asking import folders_of
from cpro.run.orders import AnalystOrders, Failed, Finish, Ready, Reload, die_with
from cpro.run.stores import shards_of

log = logging.getLogger(__name__)

TABLES_WITHIN_S = 30.0
"""What a question waits for the tables of a first start, on a machine that is busy."""


class SinkTally:
    """Counts what becomes of one sink's rows, where everybody can see it."""

    def __init__(self, counters: Counters, catalogue: Catalogue, sink: str) -> None:
        self._counters = counters
        self._rows = {table: catalogue.sink_rows.slot(sink, table) for table in catalogue.sink_rows.labels["table"]}
        self._dropped = catalogue.sink_dropped.slot(sink)
        self._errors = catalogue.sink_errors.slot(sink)
        self._lag = catalogue.sink_lag.slot(sink)

    def stored(self, table: str, rows: int) -> None:
        self._counters.add(self._rows[table], rows)

    def lost(self, rows: int) -> None:
        self._counters.add(self._dropped, rows)

    def failed(self) -> None:
        self._counters.add(self._errors)

    def lag(self, ms: int) -> None:
        self._counters.set(self._lag, ms)


class Analyst:
    """Everything the process owns. The supervisor restarts it when it dies."""

    def __init__(self, orders: AnalystOrders, channel: Channel) -> None:
        self._orders = orders
        self._channel = channel
        settings = orders.started
        catalogue = Catalogue(orders.operations, orders.plugins, shards_of(settings), orders.sinks)
        self._counter_file = CounterFile.attach(orders.counters_path)
        self._dropped = dict(catalogue.journal_dropped.samples())
        counters = self._counter_file.block(orders.block)
        self._flush = flush_of(orders.settings)
        self._clickhouse = sink_of(settings)
        self._shipper = Shipper(
            folders_of(settings),
            self._sinks(),
            self._flush,
            settings.clickhouse_analytics.max_journal_size,
            lambda sink: SinkTally(counters, catalogue, sink),
        )
        self._reader = reader_of(settings)
        self._queries = QueryServer(Path(settings.data_dir), self._ask, self._status, self._reader.close)
        self._finished = asyncio.Event()
        self._within_s = 0.0

    async def run(self) -> None:
        """Work until told to finish."""
        is_open = True
        try:
            await self._queries.start()
        except OSError as error:  # queries are not worth stopping for
            is_open = False
            log.error("no socket for queries", extra=logs.fields(error=str(error)))
        self._shipper.start()
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._on_message)
        self._channel.send(Ready())
        await self._finished.wait()
        if is_open:
            await self._queries.close()
        await asyncio.to_thread(self._shipper.stop, self._within_s)  # the engine ends with its last handle, the sink's

    def _sinks(self) -> dict[str, Sink]:
        started = self._orders.started
        if not started.clickhouse_analytics.clickhouse_dsn and find_spec("chdb") is None:
            raise StartError(
                "clickhouse_analytics: the embedded ClickHouse is not installed: pip install 'cpro[embedded]', or name "
                "a server in clickhouse_dsn"
            )
        sinks: dict[str, Sink] = {self._orders.sinks[0]: self._clickhouse}
        if len(self._orders.sinks) > 1:
            from cpro.plugins.load import load_again

            orders = self._orders
            collected = load_again(orders.started.plugins, orders.plugins, orders.operations, orders.sinks[1:])
            sinks.update((name, sink) for _, name, sink in collected.sinks)
        return sinks

    def _ask(self, sql: str, form: Format) -> bytes:
        """One may come before the tables are there: it waits for them, but not for an engine that can't be opened."""
        self._clickhouse.was_opened.wait(TABLES_WITHIN_S)
        return self._reader.ask(sql, form)

    def _status(self) -> dict[str, Any]:
        """What the sinks say, and what of the workers' rows found no room in the journal."""
        state, totals = self._shipper.status(), self._counter_file.totals()
        state["journal"]["dropped_rows"] = {table: totals[slot] for (table,), slot in self._dropped.items()}
        return state

    def _on_message(self) -> None:
        try:
            message = self._channel.recv()
        except EOFError:  # the supervisor is gone; the kernel is about to end us too
            os._exit(1)
        if isinstance(message, Reload):
            logs.set_level(message.settings.log.level)
            flush = flush_of(message.settings)
            self._shipper.configure(flush.interval_s, flush.rows)
            self._channel.send(Ready())
        elif isinstance(message, Finish):
            self._within_s = message.within_s
            self._finished.set()


def flush_of(settings: Settings) -> Flush:
    """One range becomes a batch of every table: cut by the shortest interval and the smallest size of those enabled."""
    block = settings.clickhouse_analytics.export
    exports: tuple[Export, ...] = (block.connections, block.subscriptions, block.operations, block.publications)
    chosen = [export for export in exports if export.enabled] or list(exports)
    return Flush(min(export.flush_interval.seconds for export in chosen), min(export.flush_size for export in chosen))


def main() -> None:
    """Entry of `python -m cpro.run.analyst FD`: `FD` is our end of the channel to the supervisor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so does a signal to the group: what workers record last is ours
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    channel: Channel = Channel(int(sys.argv[1]))
    orders = channel.recv()
    die_with(orders.supervisor)
    logs.start(orders.settings.log.level)
    status = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_analyse(orders, channel))
    except CproError as error:
        with suppress(OSError):
            channel.send(Failed(str(error)))
        status = 1
    logging.shutdown()
    os._exit(status)


async def _analyse(orders: AnalystOrders, channel: Channel) -> None:
    await Analyst(orders, channel).run()


if __name__ == "__main__":
    main()
