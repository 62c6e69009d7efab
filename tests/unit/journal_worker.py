"""A process that appends numbered rows to a journal, until killed; started by test_journal_processes.

Rows are (round, number, text made of both). After each append that returned True the number of rows is in the first
8 bytes of the file of acknowledgements, which parent and child have mapped.
"""

import mmap
import random
import sys
import time

from cpro._fast.journal import RowWriter
from cpro.analytics.schema import Kind
from cpro.analytics.segments import Segments

KINDS = [Kind.U64, Kind.U64, Kind.TEXT]


def text_of(this_round: int, number: int) -> str:
    """From one character to three thousand, ASCII and not."""
    chance = random.Random(this_round * 1_000_003 + number)
    return chance.choice("xéж😀") * chance.choice([1, 10, 10, 10, 100, 1000, 3000])


def main(root: str, acknowledged: str, this_round: int) -> None:
    with open(acknowledged, "r+b") as file:
        counter = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")  # written whole, unlike by struct.pack_into
    segments = Segments(root, 0, workers=8, max_bytes=1 << 30, sync_interval_s=0.02, report=print)
    segments._size = 256 * 1024  # changes of segment are where it hurts
    segments.open()
    segments.start()
    rows = RowWriter(segments.journal, 1, KINDS)
    number = 0
    while True:
        if rows.append((this_round, number, text_of(this_round, number))):
            number += 1
            counter[0] = number
        else:
            time.sleep(0.0005)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
