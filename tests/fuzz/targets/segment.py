"""Segments whose writer is gone: what is read of any file is what the oracle reads, in batches of any size.

The first four bytes set it up: flags, and one byte of the header that is changed (place, what it is changed by). The
rest lies where records begin. Fuzzers don't guess checksums, so by the flags they are put right.
"""

import tempfile
from pathlib import Path

from cpro._fast.journal import START, SegmentReader
from cpro.errors import StoreError
from tests.oracle import journal as oracle

SETUP_BYTES = 4
SUMMED, SEALED, MARKED = 1, 2, 4
"""Flags: put the checksums right; the writer sealed it; `committed` is behind the last byte, not at START."""
NAME = bytes(range(16))
ROOM = 64
"""Zeros behind the records."""

_folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
_path = f"{_folder.name}/1.seg"


def run(data: bytes) -> None:
    setup, area = data[:SETUP_BYTES].ljust(SETUP_BYTES, b"\0"), data[SETUP_BYTES:]
    file = build(setup[0], area)
    file[int.from_bytes(setup[1:3], "little") % START] ^= setup[3]
    with open(_path, "wb") as out:
        out.write(file)
    try:
        twin = oracle.Segment(bytes(file))
    except ValueError:
        refuse()
        return
    for most_rows in (1, 1000):
        compare(twin, most_rows)


def build(flags: int, area: bytes) -> bytearray:
    if flags & SUMMED:
        area = summed(area)
    size = START + len(area) + ROOM
    head = oracle.identity(NAME, size)
    file = bytearray(START) + area + bytes(ROOM)
    end = (START + len(area)).to_bytes(8, "little")
    for at, what in (
        (0, head),
        (1024, head),
        (oracle.MARKS_AT, end if flags & MARKED else START.to_bytes(8, "little")),
    ):
        file[at : at + len(what)] = what
    if flags & SEALED:
        file[oracle.MARKS_AT + 64 : oracle.MARKS_AT + 72] = end
    return file


def summed(area: bytes) -> bytes:
    """With the right checksum for every record that ends within; a length is taken modulo 256."""
    out, at = bytearray(area), 0
    while at + 9 <= len(out):
        size = out[at] or 1
        body = out[at + 8 : at + 8 + size]
        if len(body) < size:
            break
        out[at : at + 4] = size.to_bytes(4, "little")
        out[at + 4 : at + 8] = oracle.crc32c(bytes(body), oracle.crc32c(NAME)).to_bytes(4, "little")
        at += 8 + size
    return bytes(out)


def refuse() -> None:
    try:
        SegmentReader(_path)
    except StoreError:
        return
    raise AssertionError("it is no segment")


def compare(twin: oracle.Segment, most_rows: int) -> None:
    reader = SegmentReader(_path)
    assert reader.sealed
    assert (reader.committed, reader.id, reader.version) == (twin.end, twin.name.hex(), twin.version)
    found, start = [], START
    while start < reader.committed:
        end, rows = reader.end_of(start, most_rows, 1 << 30)
        batch = reader.records(start, end)
        assert len(batch) == rows
        assert start < end <= reader.committed
        found += batch
        start = end
    twin.bad = twin.lost_bytes = 0
    assert found == twin.records()
    assert (reader.bad, reader.lost_bytes) == (twin.bad, twin.lost_bytes)
    reader.close()
