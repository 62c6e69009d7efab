"""Where the bucket table lives: chosen, opened and kept tidy by the supervisor, before any worker exists.

By default `/dev/shm/cpro-<uid>/<instance>.buckets`, since random dirty pages of a file on disk cost writeback; where
that has no room, `<data_dir>/buckets/`. The instance is a random name kept in `<data_dir>/instance`, so that several
services of one user do not share limits, and a table is found again wherever the data folder is moved to.
"""

import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from cpro._fast import mapped
from cpro._fast.bucketfile import file_bytes, read_home
from cpro._fast.buckets import BucketTable
from cpro._fast.leasetable import LeaseTable
from cpro.errors import StartError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
LEASES_SHARE = 4
"""Of so many buckets one is expected to be leased: users who were active in the last seconds."""
_MARGIN_BYTES = 8 << 20
_INSTANCE = re.compile(r"[0-9a-f]{32}")


def open_table(settings_path: str, data_dir: str, max_buckets: int, now_ns: int) -> BucketTable:
    """This service's table, with the buckets it had since the machine started; raises StartError where it can't be."""
    home = Path(data_dir).resolve()
    size = file_bytes(max_buckets)
    name = f"{_instance(home)}.buckets"
    folders = [Path(settings_path)] if settings_path else _default_folders(home)
    chosen = _choose(folders, name, size)
    private_folder(chosen)
    sweep(chosen, name)
    path = str(chosen / name)
    table = BucketTable.create_or_open(path, max_buckets, mapped.boot_id(), now_ns, str(home))
    for other in {*_default_folders(home)} - {chosen}:
        with suppress(OSError):
            (other / name).unlink()
    return table


def open_leases(buckets: BucketTable, max_buckets: int, now_ns: int) -> LeaseTable:
    """The leases of this service, beside its buckets; raises StartError where they can't be."""
    path = buckets.path.removesuffix(".buckets") + ".leases"
    return LeaseTable.create_or_open(
        path, max(1024, max_buckets // LEASES_SHARE), mapped.boot_id(), now_ns, buckets.home
    )


def private_folder(path: str | Path) -> Path:
    """The folder at `path`, made if need be; nobody but this user may have access to it."""
    path = Path(path)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.lstat()
    except OSError as fault:
        raise StartError(f"can't make the folder {path}: {fault.strerror}") from fault
    if not stat.S_ISDIR(facts.st_mode):
        raise StartError(f"{path} must be a folder, not a symbolic link")
    if facts.st_uid != os.geteuid():
        raise StartError(f"{path} belongs to user {facts.st_uid}, not to this one")
    if facts.st_mode & 0o077:
        raise StartError(f"{path} is open to other users: chmod 700 it")
    return path


def sweep(folder: Path, own: str) -> None:
    """Remove tables, but `own`, whose service is gone: nobody has them open, and no data folder names them."""
    for path in folder.glob("*.buckets"):
        if path.name == own:  # the data folder may have moved since it was written
            continue
        with suppress(OSError, StartError):
            home = read_home(str(path))
            if home and _read_instance(Path(home)) == path.stem:
                continue
            if not _is_open(path):
                path.unlink()


def _default_folders(home: Path) -> list[Path]:
    return [SHARED_MEMORY / f"cpro-{os.geteuid()}", home / "buckets"]


def _choose(folders: list[Path], name: str, size: int) -> Path:
    """Where the table is already, in the right size; else the first with room; else the last, which will say so."""
    for folder in folders:
        with suppress(OSError):
            if (folder / name).stat().st_size == size:
                return folder
    for folder in folders[:-1]:
        with suppress(OSError):
            room = os.statvfs(folder if folder.exists() else folder.parent)
            if room.f_bavail * room.f_frsize >= size + _MARGIN_BYTES:
                return folder
    return folders[-1]


def _instance(home: Path) -> str:
    """The name kept in the data folder. A copied folder gets another: two services must not be one holder of leases."""
    found = _read_instance(home)
    if found and not _is_copy(home, found):
        return found
    made = secrets.token_hex(16)
    unfinished = home / "instance.new"
    try:
        unfinished.unlink(missing_ok=True)
        with open(unfinished, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(made + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(home / "instance")
    except OSError as fault:
        raise StartError(f"can't write {home / 'instance'}: {fault.strerror}") from fault
    return made


def _read_instance(home: Path) -> str | None:
    try:
        text = (home / "instance").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _INSTANCE.fullmatch(text) else None


def _is_copy(home: Path, instance: str) -> bool:
    for folder in _default_folders(home):
        with suppress(StartError):
            other = read_home(str(folder / f"{instance}.buckets"))
            if other and other != str(home) and _read_instance(Path(other)) == instance:
                return True
    return False


def _is_open(path: Path) -> bool:
    """Whether a process has the table open: each holds a shared lock."""
    fd = mapped.open_own(str(path))
    if fd is None:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
