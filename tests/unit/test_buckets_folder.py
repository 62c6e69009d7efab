"""Where the table lives, and who may have a folder there."""

import os
import shutil
from pathlib import Path

import pytest

from cpro.errors import StartError
from cpro.limits import table as limits_table
from cpro.limits.table import open_table, private_folder

NOW_NS = 10**15


@pytest.fixture(autouse=True)
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of our own in place of /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(limits_table, "SHARED_MEMORY", folder)
    return folder


def data_folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    return folder


def open_for(home: Path, max_buckets: int = 100, settings_path: str = ""):
    return open_table(settings_path, str(home), max_buckets, NOW_NS)


def tables_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.buckets*")}


def test_it_lies_in_a_private_folder_in_shared_memory_and_is_found_again(tmp_path: Path, shared_memory: Path):
    home = data_folder(tmp_path, "data")
    first = open_for(home)
    assert Path(first.path).parent == shared_memory / f"cpro-{os.geteuid()}"
    assert Path(first.path).parent.stat().st_mode & 0o777 == 0o700
    assert (home / "instance").stat().st_mode & 0o777 == 0o600
    holder = first.holder_id
    first.close()
    again = open_for(home)
    assert (again.path, again.holder_id) == (first.path, holder)


def test_a_moved_data_folder_finds_its_table_again(tmp_path: Path):
    first = open_for(data_folder(tmp_path, "data"))
    holder = first.holder_id
    first.close()
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = open_for(tmp_path / "moved")
    assert (moved.path, moved.holder_id, moved.home) == (first.path, holder, str(tmp_path / "moved"))


def test_a_copied_data_folder_gets_a_table_of_its_own(tmp_path: Path):
    first = open_for(data_folder(tmp_path, "data"))
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    second = open_for(tmp_path / "copy")
    assert second.path != first.path
    assert second.holder_id != first.holder_id
    assert open_for(tmp_path / "data").holder_id == first.holder_id


def test_without_room_in_shared_memory_it_lies_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = data_folder(tmp_path, "data")
    full = os.statvfs_result((4096, 4096, 10, 10, 10, 10, 10, 10, 0, 255))
    monkeypatch.setattr(limits_table.os, "statvfs", lambda _: full)
    assert Path(open_for(home).path).parent == home / "buckets"


def test_a_table_in_shared_memory_stays_there_although_a_second_had_no_room(
    tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch
):
    home = data_folder(tmp_path, "data")
    first = open_for(home)
    full = os.statvfs_result((4096, 4096, 10, 10, 10, 10, 10, 10, 0, 255))
    monkeypatch.setattr(limits_table.os, "statvfs", lambda _: full)
    assert open_for(home).holder_id == first.holder_id


def test_a_configured_folder_is_used_and_the_default_one_left_tidy(tmp_path: Path, shared_memory: Path):
    home = data_folder(tmp_path, "data")
    open_for(home)
    chosen = open_for(home, settings_path=str(tmp_path / "chosen" / "deep"))
    assert Path(chosen.path).parent == tmp_path / "chosen" / "deep"
    assert tables_in(shared_memory) == set()


def test_tables_of_services_that_are_gone_are_removed(tmp_path: Path, shared_memory: Path):
    gone, renamed, alive = (data_folder(tmp_path, name) for name in ("gone", "renamed", "alive"))
    running = open_for(data_folder(tmp_path, "running"))
    for home in (gone, renamed, alive):
        open_for(home).close()
    for home in (gone, tmp_path / "running"):
        shutil.rmtree(home)
    (renamed / "instance").unlink()
    before = tables_in(shared_memory)
    own = open_for(data_folder(tmp_path, "own"))
    assert len(before) == 4
    assert len(tables_in(shared_memory)) == 3
    assert {Path(running.path).name, Path(own.path).name} < tables_in(shared_memory)


def test_a_link_in_place_of_the_folder_stops_the_start(tmp_path: Path, shared_memory: Path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (shared_memory / f"cpro-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="not a symbolic link"):
        open_for(data_folder(tmp_path, "data"))


def test_a_folder_open_to_others_stops_the_start(tmp_path: Path):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(StartError, match="chmod 700"):
        private_folder(tmp_path / "open")


def test_a_folder_of_another_user_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "theirs").mkdir(mode=0o700)
    monkeypatch.setattr(limits_table.os, "geteuid", lambda: 12345)
    with pytest.raises(StartError, match="belongs to user"):
        private_folder(tmp_path / "theirs")


def test_a_file_in_place_of_the_folder_stops_the_start(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="can't make the folder"):
        private_folder(tmp_path / "file")


@pytest.mark.parametrize("text", [b"", b"short", b"\xff\xfe", b"../../../../../../../../etc/passwd"])
def test_a_damaged_instance_name_is_replaced(tmp_path: Path, text: bytes):
    home = data_folder(tmp_path, "data")
    (home / "instance").write_bytes(text)
    assert Path(open_for(home).path).stem == (home / "instance").read_text().strip()
