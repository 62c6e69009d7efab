"""A process that updates a status table for tests: `python -m tests.unit.statusfile_worker FOLDER SEED COUNT`.

It says `ready`, waits for a line, then updates random users with random times and writes, as JSON, the latest times it
has stored of each to `SEED.json` beside the folder. Its tables soon need room. COUNT 0:
the same two users for ever, with times that grow; it says each after it is stored.
"""

import json
import sys
from pathlib import Path
from random import Random

from cpro.status import generations
from cpro.status.generations import Generations

USERS = 5000


def main(folder: str, seed: int, count: int) -> None:
    generations.FIRST_SLOTS = 210
    table = Generations.attach(Path(folder))
    print("ready", flush=True)
    sys.stdin.readline()
    if not count:
        now = 1
        while True:
            for user in ("even", "odd"):
                assert table.update(user, now, now + 1, 0)
            print(now, flush=True)
            now += 1
    random = Random(seed)
    latest: dict[str, list[int]] = {}
    for _ in range(count):
        user, active, online = (
            f"user-{random.randrange(USERS)}-{seed % 2}",
            random.randrange(2**32),
            random.randrange(2**32),
        )
        assert table.update(user, active, online, 0)
        known = latest.setdefault(user, [0, 0])
        latest[user] = [max(known[0], active), max(known[1], online)]
    Path(folder).with_name(f"{seed}.json").write_text(json.dumps(latest))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
