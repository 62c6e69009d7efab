"""Where a sink is in the journal, and the batches that it is being sent: one small file per sink.

Beside it lies some room for a disk that is full: only what is sent can be deleted, and nothing is sent without a place.

The file is replaced atomically and fsynced before a batch is sent for the first time, and again before a segment is
deleted. So whoever comes after `kill -9` or a power cut sends the same rows under the same id again, never other rows
under it, and never fewer because a segment is gone.
"""

import errno
import hashlib
import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from cpro.logs import fields

log = logging.getLogger(__name__)

VERSION: Final = 1
ID_CHARS: Final = 40
ROOM_BYTES: Final = 256 << 10
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_BEYOND_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]")


class Part(msgspec.Struct, frozen=True):
    """A piece of one segment: whole records."""

    path: str
    """Of the segment, below the journal's folder: `0/00000000000000000001.seg`."""
    segment: str
    """Its random id: a path may be used again, an id never is."""
    start: int
    end: int
    """Offsets of the first byte, and of that behind the last."""


class Piece(msgspec.Struct, frozen=True):
    """Rows of one table in some parts of the journal: what becomes one batch."""

    table: str
    parts: tuple[Part, ...]

    @property
    def id(self) -> str:
        """The same for the same rows of the same journal, whoever asks and whenever."""
        text = "|".join((self.table, *(f"{part.segment}:{part.start}:{part.end}" for part in self.parts)))
        return hashlib.sha256(text.encode()).hexdigest()[:ID_CHARS]


class Position(msgspec.Struct, frozen=True):
    """How far a sink is in one segment."""

    segment: str
    offset: int


class Place(msgspec.Struct):
    """What the file holds."""

    version: int = VERSION
    positions: dict[str, Position] = {}
    """By path. All before the offset is stored, or was given up."""
    range: tuple[Part, ...] = ()
    """Being sent. When all its pieces are stored, the positions move to its end."""
    pieces: list[Piece] = []
    """Of the range, those whose answer was not known when this was written."""

    def offset(self, path: str, segment: str, default: int) -> int:
        """Where to go on in a segment."""
        position = self.positions.get(path)
        return position.offset if position is not None and position.segment == segment else default

    def advance(self) -> None:
        """The range is stored."""
        for part in self.range:
            self.positions[part.path] = Position(part.segment, part.end)
        self.range, self.pieces = (), []


class PlaceFile:
    """The file of one sink. Not for several threads at once."""

    def __init__(self, folder: Path, sink: str) -> None:
        self._folder = folder
        self._path = folder / (_BEYOND_NAMES.sub(lambda found: f"%{ord(found[0]):x}%", sink) + ".json")
        self._room = self._path.with_suffix(".room")

    @staticmethod
    def names(folder: Path) -> list[str]:
        """The sinks that have a file there."""
        stems = sorted(path.stem for path in folder.glob("*.json"))
        return [re.sub("%([0-9a-f]+)%", lambda found: chr(int(found[1], 16)), stem) for stem in stems]

    def load(self) -> tuple[Place, bool]:
        """The place, and whether the file could be read: where it could not, the sink starts over from what is kept.

        A sink then gets batches it has had; their ids tell it so where they were cut alike.
        """
        try:
            place = msgspec.json.decode(self._path.read_bytes(), type=Place)
        except FileNotFoundError:
            return Place(), True
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            return self._unusable(str(error)), False
        if place.version != VERSION:
            return self._unusable(f"it has version {place.version}"), False
        return place, True

    def save(self, place: Place) -> None:
        """Replace the file; when this returns, a power cut can't take it back. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._replace(place)
        except OSError as error:
            if error.errno not in _NO_ROOM or not self._room.exists():
                raise
            self._room.unlink()
            self._replace(place)
        else:
            self._keep_room()

    def _keep_room(self) -> None:
        if not self._room.exists():
            with suppress(OSError):
                fd = os.open(self._room, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    os.posix_fallocate(fd, 0, ROOM_BYTES)
                finally:
                    os.close(fd)

    def _replace(self, place: Place) -> None:
        unfinished = self._path.with_suffix(".new")
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            data = memoryview(msgspec.json.encode(place))
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(unfinished, self._path)
        sync_folder(self._folder)

    def _unusable(self, why: str) -> Place:
        log.error("place of a sink can't be read, it starts over", extra=fields(file=str(self._path), error=why))
        return Place()


def sync_folder(folder: Path) -> None:
    """Make names in a folder safe against a power cut; a file system that can't is as good as it is."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
