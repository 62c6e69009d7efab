"""Files that processes of one node share by mapping them: private, allocated in full before anybody touches a page.

A page of a mapped file that has no room behind it kills with SIGBUS at the first write, so `posix_fallocate` comes
first. A file appears under its name only when it is complete (temporary name, then rename); whoever has the old one
mapped keeps the old one.
"""

import errno
import mmap
import os
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cpro.errors import StartError

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def create(path: str, size: int, fill: Callable[[mmap.mmap], None]) -> tuple[int, mmap.mmap]:
    """A new file of `size` bytes, zeros but for what `fill` writes, put in place of whatever `path` was."""
    unfinished = path + ".new"
    with suppress(FileNotFoundError):
        os.unlink(unfinished)
    fd = -1
    try:
        fd = os.open(unfinished, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
        os.posix_fallocate(fd, 0, size)
        pages = share(fd, size)
        fill(pages)
        os.rename(unfinished, path)
    except BaseException as fault:
        if fd >= 0:
            os.close(fd)
            os.unlink(unfinished)
        if isinstance(fault, OSError):
            why = f"no room for {size / 1e6:.0f} MB" if fault.errno in _NO_ROOM else fault.strerror
            raise StartError(f"can't create {path}: {why}") from fault
        raise
    return fd, pages


def fill_empty(path: str, size: int) -> mmap.mmap:
    """Give the empty file at `path` (a memfd in /proc, say) its `size` bytes of zeros, and map it."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(fd, 0, size)
        return share(fd, size)
    except OSError as fault:
        raise StartError(f"no room for {size} bytes in {path}") from fault
    finally:
        os.close(fd)


def attach(path: str, least: int, kind: str) -> mmap.mmap:
    """Map the file that the supervisor made at `path` (a memfd in /proc). StartError where there is none so large."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as fault:
        raise StartError(f"can't open the {kind} {path}: {fault.strerror}") from fault
    try:
        size = os.fstat(fd).st_size
        if size < least:
            raise StartError(f"{path} is not a {kind}")
        return share(fd, size)
    finally:
        os.close(fd)


def open_own(path: str) -> int | None:
    """The file at `path` if it is there, a plain file, and this user's alone; None if it should be replaced."""
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    except OSError as fault:
        why = "it is a symbolic link" if fault.errno == errno.ELOOP else fault.strerror
        raise StartError(f"can't open {path}: {why}") from fault
    facts = os.fstat(fd)
    if stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o077:
        return fd
    os.close(fd)
    if facts.st_uid != os.geteuid():
        raise StartError(f"{path} belongs to user {facts.st_uid}, not to this one")
    return None


def share(fd: int, size: int) -> mmap.mmap:
    """Map the first `size` bytes for reading and writing, shared; kept out of core dumps (they hold hash keys)."""
    pages = mmap.mmap(fd, size, flags=mmap.MAP_SHARED)
    for advice in (mmap.MADV_HUGEPAGE, mmap.MADV_RANDOM, mmap.MADV_DONTDUMP):
        with suppress(OSError):  # a hint; kernels without it are as right, only slower
            pages.madvise(advice)
    return pages


def boot_id() -> bytes:
    """16 bytes that are others after each start of the machine: what a file says of a time before may be torn."""
    try:
        return uuid.UUID(BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError) as fault:
        raise StartError(f"can't read {BOOT_ID}: {fault}") from fault
