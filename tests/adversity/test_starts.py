"""A place that can't be used stops the start: exit 1 and a line that says which, never a traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import Service, event

CPRO = [sys.executable, "-m", "cpro", "serve", "-c"]


def fails(tmp_path: Path, settings: dict, *words: str, command: list[str] | None = None) -> None:
    """Check that `cpro serve` with these settings ends with 1, in a few clear lines that hold these words."""
    config = tmp_path / "cpro.json"
    ports = {"proxy": {"address": "127.0.0.1:0"}, "http_api": {"address": "127.0.0.1:0"}}
    table = {"path": str(tmp_path / "table"), "max_buckets": 10_000}
    config.write_text(json.dumps({**ports, "data_dir": str(tmp_path / "data"), "limits_table": table, **settings}))
    result = subprocess.run([*(command or CPRO), str(config)], capture_output=True, text=True, timeout=20)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 2, result.stderr
    last = result.stderr.splitlines()[-1]
    for word in words:
        assert word in last, result.stderr


def on_mount(place: Path, options: str, then: str = "true") -> list[str]:
    """A command that runs cpro where `place` is a file system of its own, in a mount namespace that ends with it."""
    place.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size=1m none "{place}" && {then} && mount -o remount,{options} "{place}" && exec "$@"'
    flags = "-m" if os.geteuid() == 0 else "-Urm"
    command = ["unshare", flags, "sh", "-c", script, "sh"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare and leave to mount")
    return [*command, *CPRO]


# --- data_dir


def test_a_data_dir_on_a_full_disk_is_named(tmp_path):
    place = tmp_path / "disk"
    command = on_mount(place, "rw", f'{{ dd if=/dev/zero of="{place}/filler" bs=4k 2>/dev/null || true; }}')
    fails(tmp_path, {"data_dir": str(place)}, "data_dir", str(place), "No space left", command=command)


def test_a_data_dir_without_inodes_is_named(tmp_path):
    place = tmp_path / "disk"
    command = on_mount(place, "nr_inodes=1")
    fails(tmp_path, {"data_dir": str(place / "data")}, "data_dir", str(place), "No space left", command=command)


def test_a_data_dir_that_is_read_only_is_named(tmp_path):
    place = tmp_path / "disk"
    command = on_mount(place, "ro")
    for path in (place, place / "data"):
        fails(tmp_path, {"data_dir": str(path)}, "data_dir", str(path), "Read-only file system", command=command)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_dir_that_belongs_to_somebody_else_is_named(tmp_path):
    fails(tmp_path, {"data_dir": "/root/cpro"}, "data_dir", "/root/cpro", "Permission denied")


def test_a_data_dir_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    fails(tmp_path, {"data_dir": str(tmp_path / "file")}, "data_dir", str(tmp_path / "file"))
    fails(tmp_path, {"data_dir": str(tmp_path / "file" / "data")}, "data_dir", str(tmp_path / "file"))


def test_a_data_dir_whose_lock_is_a_folder_is_named(tmp_path):
    (tmp_path / "data" / "lock").mkdir(parents=True)
    fails(tmp_path, {}, "data_dir", str(tmp_path / "data"))


# --- the table's folder


@pytest.mark.parametrize("parent", ["/dev/shm", ""], ids=["in_dev_shm", "elsewhere"])
@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda path: (path.mkdir(), path.chmod(0o755)), "chmod 700"),
        (lambda path: (path.mkdir(), path.chmod(0o770)), "chmod 700"),
        (lambda path: path.symlink_to(path.parent), "symbolic link"),
        (lambda path: path.symlink_to("/nowhere/at/all"), "File exists"),
        (lambda path: path.write_text(""), "File exists"),
    ],
    ids=["readable_by_all", "writable_by_the_group", "a_link", "a_dangling_link", "a_file"],
)
def test_a_folder_that_others_could_tamper_with_is_named(tmp_path, parent, make, word):
    folder = Path(parent or tmp_path) / f"cpro-test-{os.getpid()}-table"
    try:
        make(folder)
        fails(tmp_path, {"limits_table": {"path": str(folder), "max_buckets": 1000}}, str(folder), word)
    finally:
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)


def test_a_table_that_is_a_link_is_not_followed(tmp_path):
    with Service(tmp_path) as cpro:
        assert cpro.stop() == 0
    (table,) = (tmp_path / "table").glob("*.buckets")
    table.rename(tmp_path / "elsewhere")
    table.symlink_to(tmp_path / "elsewhere")
    fails(tmp_path, {}, str(table), "symbolic link")


def test_a_file_system_too_small_for_the_table_is_named(tmp_path):
    place = tmp_path / "disk"
    settings = {"limits_table": {"path": str(place / "table"), "max_buckets": 1_000_000}}
    fails(tmp_path, settings, str(place), "no room for", "MB", command=on_mount(place, "rw"))


def test_a_table_on_a_read_only_file_system_is_named(tmp_path):
    place = tmp_path / "disk"
    settings = {"limits_table": {"path": str(place / "table")}}
    fails(tmp_path, settings, str(place), "Read-only", command=on_mount(place, "ro"))


def test_a_table_larger_than_files_may_be_is_an_error_and_nothing_half_made_is_left(tmp_path):
    fails(tmp_path, {}, "no room for", command=["sh", "-c", 'ulimit -f 16; exec "$@"', "sh", *CPRO])
    assert list((tmp_path / "table").iterdir()) == []


def test_a_damaged_table_is_replaced_and_the_service_starts(tmp_path):
    settings = {"proxy": {"without_upstream": "allow"}}
    for damage in (lambda path: os.truncate(path, 100), lambda path: path.write_bytes(b"x" * path.stat().st_size)):
        with Service(tmp_path, settings) as cpro:
            assert cpro.post("publish", event()) == (200, {"result": {}})
        (table,) = (tmp_path / "table").glob("*.buckets")
        damage(table)
    with Service(tmp_path, settings) as cpro:
        assert cpro.post("publish", event()) == (200, {"result": {}})


# --- addresses


@pytest.mark.parametrize("door", ["proxy", "http_api"])
def test_an_address_that_can_not_be_bound_is_named(tmp_path, door):
    for address in (
        "192.0.2.1:8001",
        "no-such-host.invalid:80",
        f"unix://{tmp_path}/no/folder/x.sock",
        "unix:///proc/x",
    ):
        fails(tmp_path, {"proxy": {"address": "127.0.0.1:0"}, door: {"address": address}}, f"{door}.address", address)


# --- no files to spare


def test_too_few_open_files_are_an_error(tmp_path):
    fails(tmp_path, {"workers": 4}, "file", command=["sh", "-c", 'ulimit -n 14; exec "$@"', "sh", *CPRO])
