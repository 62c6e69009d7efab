"""SQL for `cpro query`: read-only, on a handle of its own, with an answer of bounded size.

`readonly` keeps statements from changing data or settings. It does not keep them from writing a file beside the engine
(`INTO OUTFILE`), from ending other queries, or from hiding behind a `;`: so the words of a
question are checked here.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from cpro.config.clickhouse_dsn import parse_dsn
from cpro.config.model import Settings
from cpro.errors import SinkError, StoreError

from .clickhouse import folder_of, plan_of
from .clickhouse_client import open_server
from .embedded import open_embedded

Format = Literal["table", "csv", "json"]
_FORMATS: Final = {"table": "PrettyCompactMonoBlock", "csv": "CSVWithNames", "json": "JSONEachRow"}
MOST_BYTES: Final = 64 << 20
_QUESTIONS: Final = frozenset({"select", "with", "show", "describe", "desc", "explain", "exists"})
_SETTINGS: Final = {
    "max_execution_time": 60,
    "max_result_bytes": MOST_BYTES,
    "result_overflow_mode": "throw",
    "max_memory_usage": 512 << 20,
    "max_bytes_before_external_group_by": 128 << 20,
    "max_bytes_before_external_sort": 128 << 20,
    "output_format_json_array_of_rows": 1,
    "output_format_json_quote_64bit_integers": 0,
    "output_format_pretty_color": 0,
    "output_format_pretty_row_numbers": 0,
    "output_format_pretty_max_rows": 10_000,
    "readonly": 1,  # the last: from here on nothing can be set
}
_TOKEN: Final = re.compile(
    r"""
      (?P<skipped> \s+ | --[^\n]* | \#[!\ ][^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<quoted> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*` )
    | (?P<word> [A-Za-z_]\w* )
    | (?P<sign> . )
    """,
    re.ASCII | re.DOTALL | re.VERBOSE,
)
_SIGNS: Final = frozenset("0123456789()[]{}<>=!+-*/%.,;:?|&^@~")
"""What may stand outside of quotes. The engine has more kinds of them: heredocs, typographic ones."""


def check_question(sql: str) -> str:
    """The statement without what ends it; ValueError where it is not one question."""
    tokens = [found for found in _TOKEN.finditer(sql) if found.lastgroup != "skipped"]
    while tokens and tokens[-1].group() == ";":
        tokens.pop()
    if not tokens:
        raise ValueError("there is no question")
    for found in tokens:
        if found.lastgroup == "sign" and found.group() not in _SIGNS:
            raise ValueError(f"the character {found.group()!r} is taken only inside '…', \"…\" or `…`, in whole pairs")
    words = [found.group().lower() if found["word"] else found.group() for found in tokens]
    opening = next((word for word in words if word != "("), "")
    if opening not in _QUESTIONS:
        raise ValueError(f"only questions are answered: {', '.join(sorted(_QUESTIONS)).upper()}")
    if ";" in words:
        raise ValueError("one statement at a time")
    if any(pair == ("into", "outfile") for pair in pairwise(words)):
        raise ValueError("answers are not written to files")
    return sql[: tokens[-1].end()]


class Reader:
    """`openers`: one per server; the first that answers is asked."""

    def __init__(self, openers: Iterable[Callable[[], Client]]) -> None:
        self._openers = list(openers)
        self._client: Client | None = None

    def ask(self, sql: str, format: Format = "table") -> bytes:  # noqa: A002 -- ClickHouse's word
        """The answer: a table, CSV with names, or a JSON array of objects. StoreError says why there is none."""
        try:
            question = check_question(sql)
        except ValueError as error:
            raise StoreError(str(error)) from None
        try:
            answer: bytes = self._connect().raw_query(question, fmt=_FORMATS[format])
        except ClickHouseError as error:
            self.close()  # chdb would prepend what it had of this answer to the next one; a server may be gone
            raise StoreError(str(error).strip()) from error
        if len(answer) > MOST_BYTES:
            raise StoreError(f"the answer has more than {MOST_BYTES >> 20} MiB: ask for less, or use LIMIT")
        return answer

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self) -> Client:
        failure: Exception | None = None
        for opener in self._openers if self._client is None else ():
            try:
                self._client = opener()
                break
            except (ClickHouseError, SinkError) as error:
                failure = error
        if self._client is None:
            raise StoreError(f"ClickHouse is away: {failure}")
        return self._client


def reader_of(settings: Settings) -> Reader:
    """Of what the settings say; opens nothing yet."""
    block, database = settings.clickhouse_analytics, plan_of(settings).database
    if not block.clickhouse_dsn:
        folder = folder_of(settings)
        return Reader([partial(_open_embedded, folder, database)])
    servers = [parse_dsn(dsn)[0] for dsn in block.clickhouse_dsn]
    opener = partial(open_server, settings=dict(_SETTINGS), database=database)
    return Reader([partial(opener, server, block.tls) for server in servers])


def _open_embedded(folder: Path, database: str) -> Client:
    client = open_embedded(folder)
    try:
        client.database = database
        for name, value in _SETTINGS.items():
            client.set_client_setting(name, value)
    except ClickHouseError:
        client.close()
        raise
    return client
