"""A writer that runs under `power_loss.c`, and stops now and then to have its files copied; started by the test.

For each stop a folder: `now/` has the files as the kernel has them, `before/` the same at some time since the last
sync, `disk/` what is surely on the disk, and `rows` how many were appended when the last sync began, and by now.
"""

import os
import random
import shutil
import sys
import time
from pathlib import Path

from cpro._fast.journal import RowWriter
from cpro.analytics.segments import Segments
from tests.unit.journal_worker import KINDS, text_of

STOPS = 12
CLOSE_TO_SYNC = 0.4


def by_hand(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    disk = Path(os.environ["POWER_LOSS_DISK"])
    segments = Segments(str(folder / "journal"), 0, workers=8, max_bytes=1 << 30, sync_interval_s=1.0, report=print)
    segments._size = 64 * 1024
    segments.open()
    rows = RowWriter(segments.journal, 1, KINDS)
    number = synced = 0
    for stop in range(STOPS):
        at = folder / f"stop{stop}"
        for _ in range(4):
            segments.prepare()
            if chance.random() < CLOSE_TO_SYNC:
                synced = number
                segments.sync()
                shutil.rmtree(at / "before", ignore_errors=True)
            if chance.random() < 0.5:
                shutil.copytree(folder / "journal" / "0", at / "before", dirs_exist_ok=True)
            for _ in range(chance.choice([1, 5, 30])):
                number += rows.append((seed, number, text_of(seed, number)))
        shutil.copytree(folder / "journal" / "0", at / "now")
        shutil.copytree(disk, at / "disk")
        (at / "rows").write_text(f"{synced} {number}")


def by_threads(folder: Path) -> None:
    """Append once, and end when the thread that syncs has brought it to the disk."""
    disk = Path(os.environ["POWER_LOSS_DISK"])
    segments = Segments(str(folder / "journal"), 0, workers=1, max_bytes=1 << 20, sync_interval_s=0.02, report=print)
    segments.open()
    segments.start()
    for text in ("first", "second"):
        assert RowWriter(segments.journal, 1, KINDS).append((0, 0, text))
        while not any(text.encode() in file.read_bytes() for file in disk.iterdir()):
            time.sleep(0.001)
    names = (disk / "names").read_text().split()
    assert {"0", "journal", *os.listdir(folder / "journal" / "0")} - set(names) <= {segments.journal.spare.path[-24:]}


if __name__ == "__main__":
    by_threads(Path(sys.argv[1])) if sys.argv[2] == "threads" else by_hand(Path(sys.argv[1]), int(sys.argv[2]))
