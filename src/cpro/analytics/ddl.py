"""What must be in ClickHouse, as statements; and, of what is there already, which of them are still to be run.

The tables are Centrifugo PRO's. Beside them: rollups that materialized views fill, and for every table a name
`…_distributed`, a view or, on a cluster, a Distributed table. Every statement may be run again without harm.
Each table has a deduplication window of its own, without which a token means nothing to a plain MergeTree.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from .rollups import ROLLUPS, Rollup
from .schema import TABLES

SCHEMA: Final = 1
"""Version of the tables, in their comments. It goes up when more is to be done to old ones than to add columns."""

SUFFIX: Final = "_distributed"
MARK: Final = "cpro "
"""Starts the comment of tables that were made here; others keep their lifetime."""
_DEFAULT_TTL: Final = "7 DAY"
_WINDOW: Final = {"non_replicated_deduplication_window": 1000}  # blocks
_REPLICATED_WINDOW: Final = {
    "replicated_deduplication_window": 10_000,  # blocks: all nodes' share it
    "replicated_deduplication_window_seconds": 7 * 86400,
}
_FSYNC: Final = {
    "fsync_after_insert": 1,
    "fsync_part_directory": 1,
    "min_rows_to_fsync_after_merge": 1,
    "old_parts_lifetime": 480,
}
"""The embedded engine's: nobody replicates what it loses."""


@dataclass(frozen=True)
class Found:
    """A table as `system.tables` and `system.columns` have it."""

    engine: str
    columns: frozenset[str]
    statement: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Storage:
    """A table that rows lie in. `moment`: the column that it is cut in days by, and that rows age by."""

    name: str
    columns: Mapping[str, str]
    source: str
    """Whose lifetime it shares."""
    engine: str = "MergeTree"
    moment: str = "time"
    key: tuple[str, ...] = ("time",)


def storages() -> Iterator[Storage]:
    for table in TABLES:
        yield Storage(table.name, {column.name: column.type for column in table.columns}, table.name)
    for rollup in ROLLUPS:
        yield Storage(rollup.name, rollup.columns, rollup.source, "AggregatingMergeTree", "minute", rollup.key)


@dataclass(frozen=True)
class Plan:
    """What is wanted. `ttls`: table -> how long its rows stay, `7 DAY`."""

    database: str
    cluster: str = ""
    ttls: Mapping[str, str] = field(default_factory=dict)
    is_embedded: bool = False

    def missing(self, found: Mapping[str, Found] | None) -> list[str]:
        """Statements still to be run, in order; `found` by name, None: there is no such database."""
        statements = []
        if found is None:
            statements.append(f"CREATE DATABASE IF NOT EXISTS {quote(self.database)}{self._on_cluster}")
        known = found or {}
        for storage in storages():
            there = known.get(storage.name)
            statements += [self._create(storage)] if there is None else self._alter(storage, there)
        statements += [self._fill(rollup) for rollup in ROLLUPS if rollup.view not in known]
        for storage in storages():
            statements += self._companion(storage, known.get(storage.name + SUFFIX))
        return statements

    def name(self, table: str) -> str:
        return f"{quote(self.database)}.{quote(table)}"

    def _create(self, storage: Storage) -> str:
        columns = ", ".join(f"{quote(name)} {type_}" for name, type_ in storage.columns.items())
        window = _REPLICATED_WINDOW if self.cluster else _WINDOW
        settings = {"ttl_only_drop_parts": 1, **window, **(_FSYNC if self.is_embedded else {})}
        return (
            f"CREATE TABLE IF NOT EXISTS {self._target(storage.name)} ({columns}) ENGINE = {self._engine(storage)} "
            f"PARTITION BY toYYYYMMDD({storage.moment}) ORDER BY ({', '.join(storage.key)}) "
            f"{self._lifetime(storage)} SETTINGS {_assignments(settings)} COMMENT {literal(self._comment(storage))}"
        )

    def _alter(self, storage: Storage, found: Found) -> Iterator[str]:
        target = self._target(storage.name)
        yield from self._add_columns(storage, storage.name, found)
        window = _window_of(found.engine)
        lacking = {name: value for name, value in window.items() if f" {name} = " not in found.statement}
        if lacking:
            yield f"ALTER TABLE {target} MODIFY SETTING {_assignments(lacking)}"
        comment = self._comment(storage)
        if found.comment.startswith(MARK) and found.comment != comment:
            yield f"ALTER TABLE {target} MODIFY {self._lifetime(storage)}"
            yield f"ALTER TABLE {target} MODIFY COMMENT {literal(comment)}"

    def _add_columns(self, storage: Storage, name: str, found: Found) -> Iterator[str]:
        for column, type_ in storage.columns.items():
            if column not in found.columns:
                yield f"ALTER TABLE {self._target(name)} ADD COLUMN IF NOT EXISTS {quote(column)} {type_}"

    def _fill(self, rollup: Rollup) -> str:
        return (
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {self._target(rollup.view)} TO {self.name(rollup.name)} "
            f"AS {rollup.select} FROM {self.name(rollup.source)} {rollup.rest}"
        )

    def _companion(self, storage: Storage, found: Found | None) -> Iterator[str]:
        """What queries written for a cluster ask."""
        name = storage.name + SUFFIX
        if found is not None and found.columns >= storage.columns.keys():
            return
        if found is not None and found.engine != "View":
            yield from self._add_columns(storage, name, found)
        elif self.cluster:
            arguments = f"{literal(self.cluster)}, {literal(self.database)}, {literal(storage.name)}"
            yield (
                f"CREATE TABLE IF NOT EXISTS {self._target(name)} AS {self.name(storage.name)} "
                f"ENGINE = Distributed({arguments}, {_sharded_by(storage)})"
            )
        else:  # a view keeps the columns that `*` stood for when it was made
            create = "CREATE VIEW IF NOT EXISTS" if found is None else "CREATE OR REPLACE VIEW"
            yield f"{create} {self.name(name)} AS SELECT * FROM {self.name(storage.name)}"  # noqa: S608

    def _engine(self, storage: Storage) -> str:
        if not self.cluster:
            return storage.engine
        path = literal("/clickhouse/tables/{cluster}/{shard}/" + f"{self.database}/{storage.name}")
        return f"Replicated{storage.engine}({path}, '{{replica}}')"

    def _lifetime(self, storage: Storage) -> str:
        return f"TTL {storage.moment} + INTERVAL {self.ttls.get(storage.source, _DEFAULT_TTL)}"

    def _comment(self, storage: Storage) -> str:
        return f"{MARK}{SCHEMA}, ttl {self.ttls.get(storage.source, _DEFAULT_TTL)}"

    def _target(self, name: str) -> str:
        return self.name(name) + self._on_cluster

    @property
    def _on_cluster(self) -> str:
        return f" ON CLUSTER {quote(self.cluster)}" if self.cluster else ""


def _window_of(engine: str) -> Mapping[str, int]:
    """By what a table of this engine remembers tokens; nothing where it has no parts of its own."""
    if not engine.endswith("MergeTree"):
        return {}
    return _REPLICATED_WINDOW if engine.startswith(("Replicated", "Shared")) else _WINDOW


def _sharded_by(storage: Storage) -> str:
    """PRO's: publications by channel, else by client."""
    if storage.name == "publications":
        return "murmurHash3_64(channel)"
    return "murmurHash3_64(client)" if "client" in storage.columns else "rand()"


def _assignments(settings: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


def quote(name: str) -> str:
    """Any name as an identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
