"""Where files are put, so that each is there in whole or not at all."""

import os
from collections.abc import Callable
from typing import IO, Any, Final, Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

UNFINISHED: Final = ".unfinished"
"""Ends the name of a file that is being written. It starts with a dot as well: readers of data sets skip both."""

Fill = Callable[[IO[bytes]], None]


class Files(Protocol):
    def put(self, path: str, fill: Fill) -> None:
        """Have `fill` write a file at `path` below the target, in place of whatever was there."""


def files_at(target: str, storage_options: dict[str, Any]) -> Files:
    """Raises ValueError or ImportError where fsspec doesn't know such a target."""
    system, root = fsspec.core.url_to_fs(target, **storage_options)
    return LocalFiles(root) if isinstance(system, LocalFileSystem) else RemoteFiles(system, root)


class LocalFiles:
    """On a disk: safe against a power cut when `put` returns."""

    def __init__(self, root: str) -> None:
        self._root = root

    def put(self, path: str, fill: Fill) -> None:
        final = os.path.join(self._root, path)
        folder, name = os.path.split(final)
        unfinished = os.path.join(folder, f".{name}{UNFINISHED}")
        os.makedirs(folder, exist_ok=True)
        with open(unfinished, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, final)
        for changed in (folder, os.path.dirname(folder), self._root):  # the names of file, day and table
            _sync(changed)


class RemoteFiles:
    """Anywhere else: written under another name, then moved, which is one step at any store worth its name."""

    def __init__(self, system: fsspec.AbstractFileSystem, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    def put(self, path: str, fill: Fill) -> None:
        final = f"{self._root}/{path}"
        folder, _, name = final.rpartition("/")
        unfinished = f"{folder}/.{name}{UNFINISHED}"
        self._system.makedirs(folder, exist_ok=True)
        with self._system.open(unfinished, "wb") as file:
            fill(file)
        try:
            self._system.mv(unfinished, final)
        except OSError:
            if not self._system.exists(final):
                raise
            self._system.rm_file(final)  # a store that doesn't replace: it holds the same rows
            self._system.mv(unfinished, final)


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
