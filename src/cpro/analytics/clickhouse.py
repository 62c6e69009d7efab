"""The built-in sink: batches into ClickHouse, exactly once, over one server, several, or the embedded engine.

A batch is one insert of one block under its id as deduplication token, so sending it again is harmless, but only where
it was sent before: with several servers, which one it went to is on the disk before it goes. A server that can't be
reached is passed over for a while; the one that has been sent a batch is asked until it answers, however long that
takes. (If it is gone for good, remove it from `clickhouse_dsn`: the batch then goes elsewhere, perhaps twice.)
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from cpro.config.clickhouse_dsn import parse_dsn
from cpro.config.model import Settings
from cpro.errors import SinkError, SinkRejectError, SinkSplitError
from cpro.logs import fields

from .batch import Batch
from .clickhouse_client import ClickhouseClient, open_server
from .clickhouse_errors import NoSchemaError, NotSentError
from .ddl import Plan
from .embedded import keep_statements, mark, open_embedded, unmark, was_cut_off
from .pins import Pins

log = logging.getLogger(__name__)

MOST_REST_S: Final = 30.0
_DOUBTED: Final = 16
"""Batches that are looked for before they are sent, after the machine went down: those that may have been sent."""
SMALL_ROWS, SMALL_BYTES = 1000, 1 << 20
"""A batch of this size is not what a server has no memory for."""
FOLDER: Final = "clickhouse"


class Node:
    """One ClickHouse that rows go to: its connection, whether its tables are as they should be, and its troubles."""

    def __init__(self, client: ClickhouseClient, plan: Plan, *, skip_schema: bool) -> None:
        self.client = client
        self.rests_until_s = 0.0
        self._plan = plan
        self._skip_schema = skip_schema
        self._is_ready = False
        self._failures = 0

    @property
    def name(self) -> str:
        return self.client.name

    def prepare(self) -> None:
        """Connect, and have the tables be there. SinkError where that can't be."""
        self.client.connect()
        if self._is_ready:
            return
        missing = self._plan.missing(self.client.find(self._plan.database))
        if missing and self._skip_schema:
            lines = "\n".join(f"{statement};" for statement in missing)
            raise SinkError(f"{self.name} lacks tables, and skip_schema_initialization is set. To be run:\n{lines}")
        for statement in missing:
            self.client.run(statement)
        if missing:
            log.info("ClickHouse has the tables now", extra=fields(server=self.name, statements=len(missing)))
        self.on_ready()
        self._is_ready = True

    def insert(self, batch: Batch) -> None:
        self.prepare()
        try:
            self.client.insert(self._plan, batch)
        except NoSchemaError:  # dropped meanwhile, or changed
            self._is_ready = False
            self.prepare()
            self.client.insert(self._plan, batch)

    def rest(self, now_s: float) -> None:
        self.rests_until_s = now_s + min(MOST_REST_S, 2.0**self._failures)
        self._failures += 1

    def recover(self) -> None:
        self.rests_until_s, self._failures = 0.0, 0

    def close(self) -> None:
        self.client.close()

    def on_ready(self) -> None:
        """The tables are as they should be."""


class EmbeddedNode(Node):
    """The engine in this process."""

    def __init__(self, client: ClickhouseClient, plan: Plan, folder: Path, *, skip_schema: bool) -> None:
        super().__init__(client, plan, skip_schema=skip_schema)
        self._folder = folder
        self._doubted: int | None = None  # batches still to be looked for before they are sent; None: not open yet

    def on_ready(self) -> None:
        keep_statements(self._folder)
        if self._doubted is None:
            self._doubted = _DOUBTED if was_cut_off(self._folder) else 0
            if not self._doubted:
                mark(self._folder)

    def insert(self, batch: Batch) -> None:
        self.prepare()
        if not self._doubted:
            super().insert(batch)
            return
        if self.client.has_all(self._plan, batch):
            log.warning("batch is there already", extra=fields(table=batch.table.name, rows=batch.rows))
        else:
            super().insert(batch)
        self._doubted -= 1
        if not self._doubted:
            mark(self._folder)

    def close(self) -> None:
        super().close()
        if self._doubted == 0:
            unmark(self._folder)


class ClickhouseSink:
    """`nodes` share the load. `pins` is needed where there are several."""

    name = "clickhouse"

    def __init__(
        self,
        nodes: Sequence[Node],
        pins: Pins | None = None,
        *,
        skip_ping: bool = False,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = list(nodes)
        self._pins = pins
        self._skip_ping = skip_ping
        self._now_s = now_s
        self._turn = 0
        self._refused = ""  # the batch that was refused last
        self.was_opened: Final = threading.Event()
        """Set once `open` has been tried: if tables can be there, they are."""

    def open(self) -> None:
        """SinkError where no server answers, or none has the tables. The embedded engine starts here."""
        try:
            if not self._skip_ping:
                self._prepare()
        finally:
            self.was_opened.set()

    def _prepare(self) -> None:
        failures = []
        for node in self._nodes:
            try:
                node.prepare()
            except SinkError as error:
                failures.append(error)
                node.rest(self._now_s())
        if len(failures) == len(self._nodes):
            raise failures[0]

    def write(self, batch: Batch) -> None:
        failure: SinkError | None = None
        for node in self._candidates(batch):
            try:
                self._send(node, batch)
            except NotSentError as error:
                node.rest(self._now_s())
                failure = error
                continue
            node.recover()
            return
        raise failure or SinkError("no ClickHouse to send to")

    def pinned(self, batch_id: str) -> str | None:
        """Name of the server that has been sent this batch, if there are several."""
        return self._pins.get(batch_id) if self._pins else None

    def close(self) -> None:
        for node in self._nodes:
            node.close()

    def _candidates(self, batch: Batch) -> list[Node]:
        """Whom to ask, in this order."""
        pinned = self.pinned(batch.id)
        if pinned is not None:
            of_that_name = [node for node in self._nodes if node.name == pinned]
            if of_that_name:
                return of_that_name
            log.warning("server of a sent batch is gone from the settings", extra=fields(server=pinned))
        self._turn += 1
        shift = self._turn % len(self._nodes)
        in_turn = self._nodes[shift:] + self._nodes[:shift]
        now_s = self._now_s()
        return [node for node in in_turn if node.rests_until_s <= now_s] or in_turn

    def _send(self, node: Node, batch: Batch) -> None:
        """NotSentError: another node may be asked."""
        is_pinned = self.pinned(batch.id) == node.name
        try:
            node.prepare()
        except SinkError as error:
            raise (SinkError if is_pinned else NotSentError)(str(error)) from error
        if self._pins is not None:
            self._pins.put(batch.id, node.name)
        try:
            node.insert(batch)
        except NotSentError as error:
            if is_pinned:  # by an earlier try, which may have reached it
                raise SinkError(str(error)) from error
            if self._pins is not None:
                self._pins.drop(batch.id)
            raise
        except SinkSplitError as error:
            if batch.rows <= SMALL_ROWS and len(batch.native) <= SMALL_BYTES:
                raise SinkError(str(error)) from error  # it is the server that has no memory for anything
            raise
        except SinkRejectError as error:
            self._doubt(batch, error)

    def _doubt(self, batch: Batch, error: SinkRejectError) -> None:
        """A body that was cut on its way looks like wrong data, too: refused is what is refused twice."""
        if self._refused != batch.id:
            self._refused = batch.id
            raise SinkError(str(error)) from error
        raise error


def plan_of(settings: Settings) -> Plan:
    block = settings.clickhouse_analytics
    export = block.export
    ttls = {
        name: getattr(export, name).ttl for name in ("connections", "subscriptions", "operations", "publications")
    }  # fmt: skip
    is_embedded = not block.clickhouse_dsn
    cluster = "" if is_embedded else block.clickhouse_cluster
    return Plan(block.clickhouse_database, cluster, ttls, is_embedded)


def sink_of(settings: Settings) -> ClickhouseSink:
    """Opens nothing yet."""
    block, plan = settings.clickhouse_analytics, plan_of(settings)
    skip_schema, data_dir = block.skip_schema_initialization, Path(settings.data_dir)
    if plan.is_embedded:
        folder = folder_of(settings)
        client = ClickhouseClient("embedded ClickHouse", partial(open_embedded, folder), is_embedded=True)
        return ClickhouseSink([EmbeddedNode(client, plan, folder, skip_schema=skip_schema)])
    nodes = []
    for dsn in block.clickhouse_dsn:
        server, _ = parse_dsn(dsn)
        client = ClickhouseClient(str(server), partial(open_server, server, block.tls))
        nodes.append(Node(client, plan, skip_schema=skip_schema))
    pins = Pins(data_dir / "clickhouse-pins") if len(nodes) > 1 else None
    return ClickhouseSink(nodes, pins, skip_ping=block.skip_ping_on_start)


def folder_of(settings: Settings) -> Path:
    """Of the embedded engine."""
    return Path(os.path.realpath(settings.data_dir)) / FOLDER
