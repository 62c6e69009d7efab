"""`data_dir`: one cpro at a time, and where in it things are."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from cpro.errors import StartError

JOURNAL = "journal"
"""Rows that sinks have not had, and how far each of them is."""
REJECTED = "rejected"
"""Batches that a sink will never take."""


def lock_data_dir(data_dir: Path) -> TextIO:
    """Take the folder for this process; released by the kernel however we end. Raises StartError."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("a+")
    except OSError as error:
        raise StartError(f"data_dir: can't use {data_dir}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise StartError(f"data_dir: {data_dir} is in use by another cpro (process {holder})") from None
    try:
        lock.truncate(0)
        os.write(lock.fileno(), str(os.getpid()).encode())
    except OSError as error:
        lock.close()
        raise StartError(f"data_dir: can't write in {data_dir}: {error.strerror}") from error
    return lock
