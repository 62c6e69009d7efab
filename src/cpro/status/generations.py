"""The node's table of statuses as one process sees it: `{data_dir}/status`, a file for each generation.

There is one file but for the moments in which the table moves into the next. Whoever needs room makes it, under a lock
of the folder; everybody else notices and follows. `_fast.statusfile` says why nothing is lost on the way.
"""

import fcntl
import logging
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Final

from cpro._fast.statusfile import DONE, FULL, StatusFile
from cpro.clock import boot_ns
from cpro.errors import StartError, StoreError
from cpro.logs import Occasional, fields

log = logging.getLogger(__name__)
occasional = Occasional(log)

FIRST_SLOTS: Final = 1 << 16
CROWDED, ROOMY = 0.75, 0.5
"""How full a table is when it moves, and how full at most after that: 33 to 49 bytes a user."""
_PAUSE_NS: Final = 5 * 10**9
"""How long a disk without room is left alone."""
_TURNS: Final = 8
_NAME: Final = re.compile(r"(\d{1,18})\.table")


class Generations:
    """Made by `own` (the supervisor, before any worker exists) or `attach`; belongs to one thread."""

    def __init__(self, folder: Path, files: Sequence[StatusFile]) -> None:
        self._folder = folder
        self._files = list(files)  # the oldest first
        self._try_again_ns = 0

    @classmethod
    def own(cls, folder: Path, boot_id: bytes) -> "Generations":
        """What is there, in one file; what can't be read is set aside. StartError: no room even for an empty one."""
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StartError(f"can't make the folder {folder}: {error.strerror}") from error
        files = [file for number in _numbers(folder) if (file := _open_or_set_aside(folder, number)) is not None]
        for stranger in [file for file in files if file.hash_key != files[-1].hash_key]:
            files.remove(stranger)
            _set_aside(stranger.path)
        if not files:
            files = [StatusFile.create(_path(folder, 1), 1, FIRST_SLOTS, secrets.token_bytes(16), boot_id)]
        table = cls(folder, files)
        for file, following in pairwise(files):
            file.following = following.number
        if len(files) > 1 or files[0].boot_id != boot_id:  # a move was cut off, or the power
            try:
                table._move(0, boot_id)
            except StartError as error:
                log.warning("status table can't be tidied up", extra=fields(error=str(error)))
        table.newest.recount()
        return table

    @classmethod
    def attach(cls, folder: Path) -> "Generations":
        """WORKER. What its supervisor opened."""
        table = cls(folder, [_open_from(folder, 0)])
        table.follow()
        return table

    # --- users

    def update(self, user: str, active: int, online: int, oldest: int, step: int = 0) -> bool:
        """See `StatusFile.update`; False: there is no room, and none can be made."""
        if len(self._files) == 1 and self._files[0].update(user, active, online, oldest, step) == DONE:
            return True
        for _ in range(_TURNS):
            self.follow()
            said = [file.update(user, active, online, oldest, step) for file in self._files][-1]
            if said == DONE:
                return True
            if said == FULL and not self.try_make_room(oldest):
                return False
        return False

    def get_many(self, users: Sequence[str], oldest: int) -> list[tuple[int, int]]:
        """(active, online) of each, 0 where it is not known."""
        self.follow()
        found = self._files[-1].get_many(users, oldest)
        for file in self._files[:-1]:
            older = file.get_many(users, oldest)
            found = [(max(a, c), max(b, d)) for (a, b), (c, d) in zip(found, older, strict=True)]
        return found

    def forget(self, users: Sequence[str]) -> None:
        """Nothing is known of them any more."""
        for user in users:
            self._forget(user)

    def _forget(self, user: str) -> None:
        while True:
            self.follow()
            for file in self._files:
                file.forget(user)
            if not self._files[-1].following:
                return

    # --- generations

    @property
    def newest(self) -> StatusFile:
        return self._files[-1]

    @property
    def needs_work(self) -> bool:
        """Whether it is crowded, or a move has not come to its end."""
        self.follow()
        return len(self._files) > 1 or _is_crowded(self._files[-1])

    def follow(self) -> None:
        """Open what others have made, let go of what has moved."""
        files = self._files
        while files[-1].following:
            files.append(_open_from(self._folder, files[-1].following))
        while len(files) > 1 and files[0].moved:
            files.pop(0).close()

    def make_room(self, oldest: int) -> None:
        """Move into a file with room, if nobody has by now. StartError: the disk has none."""
        with self._locked():
            if self.needs_work:
                self._move(oldest, self._files[-1].boot_id)

    def try_make_room(self, oldest: int) -> bool:
        """The same; False: there is none, and for a while nobody looks again."""
        now_ns = boot_ns()
        if now_ns < self._try_again_ns:
            return False
        try:
            self.make_room(oldest)
        except StartError as error:
            self._try_again_ns = now_ns + _PAUSE_NS
            occasional.warning("room", "status table can't grow", error=str(error))
            return False
        return True

    def sync(self) -> None:
        """Have the disk hold all of it; blocks."""
        for file in self._files:
            file.sync()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _move(self, oldest: int, boot_id: bytes) -> None:
        """Into the newest file, or one that is made for it."""
        is_done = False
        while not is_done:
            newest = self._files[-1]
            if _is_crowded(newest) or newest.boot_id != boot_id:
                newest = self._begin_next(oldest, boot_id)
            is_done = all(file.move_into(newest, oldest) for file in self._files[:-1])
        for file in self._files[:-1]:
            file.end_move()
            with suppress(OSError):
                os.unlink(file.path)
        self.follow()

    def _begin_next(self, oldest: int, boot_id: bytes) -> StatusFile:
        newest = self._files[-1]
        slots = max(FIRST_SLOTS, round(sum(file.live(oldest) for file in self._files) / ROOMY))
        number = newest.number + 1
        made = StatusFile.create(_path(self._folder, number), number, slots, newest.hash_key, boot_id)
        newest.following = number
        self._files.append(made)
        return made

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self._folder / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_crowded(file: StatusFile) -> bool:
    return file.used > CROWDED * file.slots


def _path(folder: Path, number: int) -> str:
    return str(folder / f"{number}.table")


def _numbers(folder: Path) -> list[int]:
    """Of the files in the folder, in order."""
    return sorted(int(match[1]) for name in os.listdir(folder) if (match := _NAME.fullmatch(name)))


def _open_or_set_aside(folder: Path, number: int) -> StatusFile | None:
    path = _path(folder, number)
    with suppress(StartError, OSError):
        if file := StatusFile.open(path, number):
            return file
    _set_aside(path)
    return None


def _set_aside(path: str) -> None:
    os.replace(path, path + ".aside")
    log.warning("status table can't be read: set aside", extra=fields(file=path + ".aside"))


def _open_from(folder: Path, least: int) -> StatusFile:
    """The oldest generation that is still there, from `least` on."""
    for _ in range(_TURNS):  # one may vanish between the look and the opening: then a later one is there
        for number in _numbers(folder):
            if number >= least and (file := StatusFile.open(_path(folder, number), number)):
                return file
    raise StoreError(f"there is no status table in {folder}")
