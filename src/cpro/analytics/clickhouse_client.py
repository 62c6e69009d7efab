"""One ClickHouse, a server or the embedded engine, over clickhouse-connect; its errors become those of sinks.

Inserts carry a token, and the setting that hands it on to the tables behind materialized views. clickhouse-connect
sends a body again when the peer closes the connection: harmless, for the token is the same.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import urllib3
from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.summary import QuerySummary

from cpro.config.clickhouse_dsn import ClickhouseServer
from cpro.config.model import TLS
from cpro.config.tls import client_context
from cpro.errors import SinkError

from .batch import Batch
from .clickhouse_errors import translate
from .ddl import Found, Plan, literal, quote
from .zstd import compress

CONNECT_S, ANSWER_S = 5, 120
"""Longest waits for a connection and for each sign of life after that."""
_INSERT: Final = {
    "async_insert": 0,  # servers collect small inserts otherwise, and acknowledge what is not stored
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_partitions_per_insert_block": 0,  # rows of any age
}
_ON_CLUSTER: Final = {"distributed_ddl_task_timeout": 30, "distributed_ddl_output_mode": "null_status_on_timeout"}
"""A replica that is away runs the statement when it is back."""
_TABLES: Final = "SELECT name, engine, create_table_query, comment FROM system.tables WHERE database = {db:String}"
_COLUMNS: Final = "SELECT table, groupArray(name) FROM system.columns WHERE database = {db:String} GROUP BY table"
_DATABASES: Final = "SELECT count() FROM system.databases WHERE name = {db:String}"


class ClickhouseClient:
    """`opener` makes the connection, when it is first needed and again after `close`."""

    def __init__(self, name: str, opener: Callable[[], Client], *, is_embedded: bool = False) -> None:
        self.name = name
        self._opener = opener
        self._is_embedded = is_embedded
        self._client: Client | None = None

    @property
    def is_open(self) -> bool:
        return self._client is not None

    def connect(self) -> Client:
        """Raises SinkError where nothing answers, or turns us away."""
        if self._client is None:
            with self._translated():
                self._client = self._opener()
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ClickHouseError as error:
            if self._is_embedded:  # after an error chdb may prepend what it had of an answer to the next one
                self.close()
            raise translate(error) from error

    def find(self, database: str) -> dict[str, Found] | None:
        """The tables of a database, None where there is no such database."""
        client, named = self.connect(), {"db": database}
        with self._translated():
            if not client.query(_DATABASES, parameters=named).result_rows[0][0]:
                return None
            columns: dict[str, list[str]] = dict(map(tuple, client.query(_COLUMNS, parameters=named).result_rows))
            tables = client.query(_TABLES, parameters=named).result_rows
        return {
            name: Found(engine, frozenset(columns.get(name, ())), statement, comment)
            for name, engine, statement, comment in tables
        }

    def run(self, statement: str) -> None:
        client = self.connect()
        with self._translated():
            client.command(statement, settings=_ON_CLUSTER if " ON CLUSTER " in statement else None)

    def insert(self, plan: Plan, batch: Batch) -> None:
        """SinkError and its kin say what became of the batch; without one it is stored, now or earlier."""
        client = self.connect()
        table, columns = plan.name(batch.table.name), [column.name for column in batch.table.columns]
        settings = {"insert_deduplication_token": batch.id, **_INSERT}
        with self._translated():
            if self._is_embedded:
                stored = _insert_from_memory(client, table, columns, batch.native, settings)
            else:
                body, over_http = compress(batch.native), {**settings, "wait_end_of_query": 1}
                stored = client.raw_insert(table, columns, body, over_http, "Native", "zstd").written_rows
        if stored < batch.rows:  # servers count what views write, too
            raise SinkError(f"{stored} rows of {batch.rows} were acknowledged by {self.name}")

    def has_all(self, plan: Plan, batch: Batch) -> bool:
        """Whether all rows of a batch are in its table. Embedded only."""
        row = f"sipHash128({', '.join(f'toString({quote(column.name)})' for column in batch.table.columns)})"
        sent = "file({path:String}, Native, {structure:String})"
        query = (
            f"WITH (SELECT min(time), max(time), uniqExact({row}) FROM {sent}) AS sent "  # noqa: S608
            f"SELECT uniqExact({row}) = sent.3 FROM {plan.name(batch.table.name)} "
            f"WHERE time BETWEEN sent.1 AND sent.2 AND {row} IN (SELECT {row} FROM {sent})"
        )
        structure = ", ".join(f"{quote(column.name)} {column.type}" for column in batch.table.columns)
        client = self.connect()
        with self._translated(), _file_in_memory(batch.native) as path:
            found = client.query(query, parameters={"path": path, "structure": structure})
        return bool(found.result_rows[0][0])


def open_server(
    server: ClickhouseServer,
    tls: TLS,
    *,
    answer_s: int = ANSWER_S,
    **options: Any,  # noqa: ANN401 -- get_client's
) -> Client:
    """Three requests; raises what clickhouse-connect does."""
    for noisy in ("clickhouse_connect", "urllib3"):  # what they warn of is raised, and told once
        logging.getLogger(noisy).setLevel(logging.ERROR)
    return get_client(
        interface="https" if server.is_tls else "http",
        host=server.address.host,
        port=server.address.port,
        username=server.user,
        password=server.password,
        compress=False,
        connect_timeout=CONNECT_S,
        send_receive_timeout=answer_s,
        client_name="cpro",
        autogenerate_session_id=False,
        pool_mgr=_pool(server, tls),
        show_clickhouse_errors=True,
        **options,
    )


def _pool(server: ClickhouseServer, tls: TLS) -> urllib3.PoolManager:
    """Connections of our own: a server that hangs keeps them from nobody else."""
    if not server.is_tls:
        return urllib3.PoolManager(maxsize=2)
    context = client_context(tls)
    if server.skip_verify:
        context.check_hostname = False
        context.verify_mode = 0  # type: ignore[assignment]  # ssl.CERT_NONE
    if not context.verify_mode:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return urllib3.PoolManager(maxsize=2, ssl_context=context, server_hostname=tls.server_name or None)


def _insert_from_memory(
    client: Client, table: str, columns: list[str], block: bytes, settings: Mapping[str, object]
) -> int:
    """What `raw_insert` does by way of a file in /tmp, which a kill would leave there. Returns how many rows it was."""
    chosen = ", ".join(f"{name} = {literal(str(value))}" for name, value in settings.items())
    with _file_in_memory(block) as path:
        answer = client.command(  # the comment hides the format: clickhouse-connect would take it for an answer's
            f"INSERT INTO {table} ({', '.join(map(quote, columns))}) "
            f"FROM INFILE {literal(path)} SETTINGS {chosen} FORMAT Native /* rows */"
        )
    return int(answer.summary.get("read_rows", 0)) if isinstance(answer, QuerySummary) else 0


@contextmanager
def _file_in_memory(content: bytes) -> Iterator[str]:
    """A path for the engine in this process (memfd_create(2))."""
    with open(os.memfd_create("cpro-block", os.MFD_CLOEXEC), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
