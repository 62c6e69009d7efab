"""What a killed worker leaves: segments that are as large as they were made, with a tail that holds nothing."""

import os

from cpro._fast.journal import SegmentReader
from cpro.errors import StoreError

PAGE = 4096


def give_back_room(folder: str) -> None:
    """Cut segments whose writer is gone down to what they hold. Readers who have them mapped never look further.

    Those of living workers, and files that are none, stay as they are. StoreError: the folder can't be read.
    """
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".seg")]
    except OSError as fault:
        raise StoreError(f"can't read {folder}: {fault.strerror}") from fault
    for name in names:
        try:
            _cut(os.path.join(folder, name))
        except (OSError, StoreError):  # deleted meanwhile, or damaged: whoever ships it has to say so
            continue


def _cut(path: str) -> None:
    reader = SegmentReader(path)
    try:
        needed = -(-reader.committed // PAGE) * PAGE if reader.sealed else None
    finally:
        reader.close()
    if needed is not None and os.path.getsize(path) > needed:
        os.truncate(path, needed)
