"""The folder of the embedded ClickHouse (chdb), and what a power cut may have done to it.

One process opens it, and never forks after. Statements of tables (`.sql`) that a power cut left empty keep the engine
from opening: they are put back from a copy that is made when all tables are as they should be, or set aside. The log
of tokens is never synced: after an unclean end of the machine a batch that is sent again may be there although its
token is not; a marker with the machine's boot id tells that apart from a mere crash of ours.
"""

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client

from cpro.errors import SinkError
from cpro.logs import fields

log = logging.getLogger(__name__)

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_MARKER: Final = "cpro-boot"
_COPIES: Final = "cpro-statements"
_TORN: Final = "cpro-torn"
_prepared: set[Path] = set()
_preparing = threading.Lock()


def open_embedded(folder: Path, **options: Any) -> Client:  # noqa: ANN401 -- clickhouse-connect's
    """One more handle to the engine, which runs from the first one on. Raises SinkError, or what the engine does."""
    prepare(folder)
    try:
        return get_client(interface="chdb", path=str(folder), **options)
    except ImportError as error:
        raise SinkError("the embedded ClickHouse is not installed: pip install 'cpro[embedded]'") from error


def prepare(folder: Path) -> None:
    """Make or mend the folder, once in this process."""
    with _preparing:
        if folder not in _prepared:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mend(folder)
            _prepared.add(folder)


def mend(folder: Path) -> None:
    for torn in list(statements(folder)):
        if torn.stat().st_size:
            continue
        place = torn.relative_to(folder)
        copy, aside = folder / _COPIES / place, folder / _TORN / place
        aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        torn.rename(aside)  # far away: the engine takes offence at any other name beside the statements
        if copy.is_file() and copy.stat().st_size:
            _copy(copy, torn, aside.with_suffix(".new"))
            log.warning("torn statement of a table is put back", extra=fields(path=str(torn)))
        else:
            log.error("torn statement of a table is set aside; its rows can't be read", extra=fields(path=str(torn)))


def keep_statements(folder: Path) -> None:
    """Copy those that are new or changed. Call it when the tables are as they should be."""
    for path in statements(folder):
        copy = folder / _COPIES / path.relative_to(folder)
        if path.stat().st_size and not (copy.is_file() and copy.read_bytes() == path.read_bytes()):
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy(path, copy, copy.with_suffix(".new"))


def statements(folder: Path) -> Iterator[Path]:
    """Of databases, and of their tables."""
    yield from folder.glob("metadata/*.sql")
    yield from folder.glob("store/*/*/*.sql")


def was_cut_off(folder: Path) -> bool:
    """Whether the machine has been started anew since `mark`, and nobody has said `unmark`."""
    marker = folder / _MARKER
    return marker.exists() and marker.read_text("ascii", "replace") != _BOOT.read_text()


def mark(folder: Path) -> None:
    """From now on there may be batches whose tokens a power cut would take. Returns when that is on the disk."""
    with (folder / _MARKER).open("w") as file:
        file.write(_BOOT.read_text())
        file.flush()
        os.fsync(file.fileno())
    there = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(there)
    finally:
        os.close(there)


def unmark(folder: Path) -> None:
    """After a clean end: every batch that was sent has been answered."""
    (folder / _MARKER).unlink(missing_ok=True)


def _copy(source: Path, target: Path, following: Path) -> None:
    """Whole or not at all, and on the disk, by way of `following`."""
    shutil.copyfile(source, following)
    with following.open("rb") as file:
        os.fsync(file.fileno())
    following.replace(target)
