"""A journal of operations as a busy service records them."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random

from cpro._fast.columns import Blocks
from cpro._fast.journal import Journal, RowWriter, SegmentReader
from cpro._fast.segment import Segment
from cpro.analytics.schema import OPERATIONS, VERSION
from cpro.clock import unix_seconds

LAYOUT = [(OPERATIONS.number, [(column.name, int(column.kind)) for column in OPERATIONS.columns])]
CLIENTS, USERS, CHANNELS = 20_000, 5_000, 2_000


def rows(count: int, seed: int = 1) -> Iterator[tuple]:
    """Publications in the main, of many clients; one in twenty is refused, one in ten has a label."""
    random, now = Random(seed), unix_seconds()
    clients = [str(uuid.UUID(int=random.getrandbits(128))) for _ in range(CLIENTS)]
    kinds = ["publish"] * 16 + ["rpc", "subscribe", "connect", "refresh"]
    for number in range(count):
        client, op = random.randrange(CLIENTS), random.choice(kinds)
        yield (
            clients[client],
            f"user-{client % USERS:06}",
            op,
            f"chat:room-{random.randrange(CHANNELS)}" if op in ("publish", "subscribe") else "",
            "update_profile" if op == "rpc" else "",
            111 if number % 20 == 0 else 0,
            0,
            random.randrange(20_000, 5_000_000),
            {"tier": "free"} if number % 10 == 0 else {},
            "chat" if op in ("publish", "subscribe") else "",
            "node-1.example.org",
            now - (count - number) // 5000,
        )


class Recorded:
    """Rows in a segment, and as lists of columns."""

    def __init__(self, folder: Path, count: int, seed: int = 1) -> None:
        recorded = list(rows(count, seed))
        self.count = count
        self.columns = [list(column) for column in zip(*recorded, strict=True)]
        path = str(folder / f"{seed}.seg")
        segment = Segment.create(path, (count // 10 + 2) * 4096, VERSION)
        journal = Journal()
        journal.switch(segment)
        writer = RowWriter(journal, OPERATIONS.number, OPERATIONS.kinds)
        for row in recorded:
            if not writer.append(row):
                raise AssertionError("the segment is too small")
        self.journal_bytes = segment.committed - SegmentReader.START
        segment.close()
        self.reader = SegmentReader(path)

    def block(self, blocks: Blocks) -> bytes:
        blocks.clear()
        added = blocks.add(self.reader, SegmentReader.START, self.reader.committed)
        if added != self.count or blocks.bad:
            raise AssertionError(f"{added} rows of {self.count}")
        return blocks.block(OPERATIONS.number)
