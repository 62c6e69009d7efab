"""The machine stops at any moment: what was appended before the last sync is there, and no row that is wrong.

What reached the disk is recorded from the writer's own system calls (`power_loss.c`). Everything newer may have, sector
by sector: each sector of a file is taken at random as it surely was on the disk, as it was some time later, or as it is
in the end. A file whose name was not synced may be missing; one of which nothing was may be empty.
"""

import os
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from cpro._fast.journal import START, SegmentReader
from cpro._fast.rows import decode
from cpro.errors import StoreError
from tests.unit.journal_worker import KINDS, text_of
from tests.unit.power_loss_worker import STOPS

SECTOR = 512
LOSSES = 6
"""For each moment."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("power") / "power_loss.so"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    source = Path(__file__).with_name("power_loss.c")
    subprocess.run([*compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made


def write(library: Path, folder: Path, how: str) -> None:
    (folder / "disk").mkdir()
    surroundings = {"LD_PRELOAD": str(library), "POWER_LOSS_DISK": str(folder / "disk")}
    command = [sys.executable, "-m", "tests.unit.power_loss_worker", str(folder), how]
    subprocess.run(command, env=os.environ | surroundings, check=True, timeout=50)


def mix(chance: random.Random, versions: list[bytes]) -> bytes:
    size = max(map(len, versions))
    padded = [version.ljust(size, b"\0") for version in versions]
    return b"".join(chance.choice(padded)[at : at + SECTOR] for at in range(0, size, SECTOR))


def lose_power(chance: random.Random, stop: Path, after: Path) -> None:
    """Put into `after` files as they might be when the machine is up again."""
    shutil.rmtree(after, ignore_errors=True)
    after.mkdir()
    names = (stop / "disk" / "names").read_text().split() if (stop / "disk" / "names").exists() else []
    for now in (stop / "now").glob("*.seg"):
        if now.name not in names and chance.random() < 0.5:
            continue
        disk, before = stop / "disk" / now.name, stop / "before" / now.name
        versions = [disk.read_bytes() if disk.exists() else b""]
        versions += [path.read_bytes() for path in (before, now) if path.exists()]
        is_empty = not disk.exists() and chance.random() < 0.3
        (after / now.name).write_bytes(b"" if is_empty else mix(chance, versions))


def read(folder: Path) -> list[tuple]:
    rows = []
    for path in sorted(folder.iterdir()):
        try:
            reader = SegmentReader(str(path))
        except StoreError:
            continue  # nothing of it was on the disk; if something should have been, rows are missing
        assert reader.sealed
        end, count = reader.end_of(START, 1 << 40, 1 << 40)
        assert end == reader.committed
        records = reader.records(START, end)
        assert len(records) == count
        rows += [decode(KINDS, data) for _, data in records]
        reader.close()
    return rows


def check(library: Path, folder: Path, seed: int) -> None:
    write(library, folder, str(seed))
    chance = random.Random(seed)
    for number in range(STOPS):
        synced, appended = map(int, (folder / f"stop{number}" / "rows").read_text().split())
        for _ in range(LOSSES):
            lose_power(chance, folder / f"stop{number}", folder / "after")
            rows = read(folder / "after")
            numbers = [row[1] for row in rows]
            assert numbers == sorted(set(numbers))
            assert set(range(synced)) <= set(numbers) <= set(range(appended))
            assert rows == [(seed, number, text_of(seed, number)) for number in numbers]


@pytest.mark.parametrize("seed", range(3))
def test_rows_older_than_the_last_sync_outlive_the_machine(library: Path, tmp_path: Path, seed: int):
    check(library, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rows_older_than_the_last_sync_outlive_the_machine_a_hundred_times(library: Path, tmp_path: Path):
    for seed in range(100, 200):
        folder = tmp_path / str(seed)
        folder.mkdir()
        check(library, folder, seed)
        shutil.rmtree(folder)


def test_a_running_journal_syncs_by_itself(library: Path, tmp_path: Path):
    write(library, tmp_path, "threads")
