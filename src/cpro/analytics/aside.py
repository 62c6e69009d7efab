"""Batches that a sink will never take, kept in files for whoever has to look after them."""

import logging
import os
from pathlib import Path
from typing import Final

from cpro.analytics.places import sync_folder
from cpro.logs import fields

log = logging.getLogger(__name__)

MOST_BYTES: Final = 1 << 30
"""Of one sink's; what comes later is only counted."""


def path_of(folder: Path, sink: str, table: str, batch: str) -> Path:
    """Where a batch of this id goes: the same file however often it is set aside."""
    return folder / sink.replace("/", "_") / f"{table}-{batch}.native"


def put_aside(path: Path, data: bytes) -> None:
    """Write a file that is there in whole or not at all; not at all where the folder is full. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sum(file.stat().st_size for file in path.parent.iterdir()) + len(data) > MOST_BYTES:
        log.error("no more batches are set aside: look after those that are", extra=fields(folder=str(path.parent)))
        return
    unfinished = path.with_suffix(".new")
    with open(unfinished, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    sync_folder(path.parent)
