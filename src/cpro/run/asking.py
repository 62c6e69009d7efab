"""`cpro query` and `cpro analytics status`: through the running service, or directly where there is none."""

from pathlib import Path
from typing import Any

import msgspec

from cpro.analytics.query import Format, Question, ask
from cpro.analytics.shipper import status_from_disk
from cpro.analytics.sinks import Folders
from cpro.config.model import Settings
from cpro.errors import StartError, StoreError, StoreUnavailableError
from cpro.run.datadir import JOURNAL, REJECTED, lock_data_dir


def folders_of(settings: Settings) -> Folders:
    data_dir = Path(settings.data_dir)
    return Folders(data_dir / JOURNAL, data_dir / REJECTED)


def run_query(settings: Settings, sql: str, form: Format) -> bytes:
    """The result; StoreError says what is wrong.

    A configured server is asked directly. The embedded engine belongs to the running service, which is asked; where
    none runs, it is opened here, and nobody can start one meanwhile.
    """
    if settings.clickhouse_analytics.clickhouse_dsn:
        return _read(settings, sql, form)
    data_dir = Path(settings.data_dir)
    try:
        return ask(data_dir, Question(sql, form))
    except StoreUnavailableError as away:
        if not (data_dir / "clickhouse").is_dir():
            raise StoreError(f"there is no ClickHouse in {data_dir} yet: clickhouse_analytics makes one") from away
        try:
            lock = lock_data_dir(data_dir)
        except StartError as error:  # it runs, and doesn't answer
            raise StoreError(f"{away}; {error}") from error
        with lock:
            return _read(settings, sql, form)


def _read(settings: Settings, sql: str, form: Format) -> bytes:
    from cpro.analytics.reads import reader_of  # the engine's driver takes its time to import

    reader = reader_of(settings)
    try:
        return reader.ask(sql, form)
    finally:
        reader.close()


def read_status(settings: Settings) -> dict[str, Any]:
    """What the running service says, else what is on the disk."""
    try:
        state: dict[str, Any] = msgspec.json.decode(ask(Path(settings.data_dir), Question()))
    except StoreUnavailableError:
        state = status_from_disk(folders_of(settings))
    return state


def status_lines(state: dict[str, Any]) -> tuple[list[str], bool]:
    """The same for people, and whether all is well: nothing is failing now."""
    journal = state["journal"]
    running = "" if state["running"] else " (nothing ships them now)"
    dropped = sum(journal.get("dropped_rows", {}).values())
    drops = f", {dropped} rows found no room since cpro started" if dropped else ""
    lines = [f"journal: {_size(journal['bytes'])} in {journal['segments']} segments{drops}{running}"]
    for sink in state["sinks"]:
        about = "about " if sink["about"] else ""
        line = f"{sink['sink']}: {about}{sink['waiting_rows']} rows wait ({_size(sink['waiting_bytes'])})"
        if state["running"]:
            line += f", lag {sink['lag_seconds']:g} s, {sink['errors']} errors, {sink['dropped_rows']} rows lost"
        lines.append(line)
        if sink.get("error"):
            lines.append(f"  failing: {sink['error']}")
    if not state["sinks"]:
        lines.append("no sink has had rows yet")
    return lines, not any(sink.get("error") for sink in state["sinks"])


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"
