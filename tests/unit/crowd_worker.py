"""A process that lets connections in and out of a crowd: `python -m tests.unit.crowd_worker WORK PATH INDEX …`."""

import json
import random
import sys
import time

from cpro._fast.crowd import REFUSED, Crowd, CrowdFile


def hold(crowd: Crowd, connections: int) -> None:
    """Let so many in, say so, and wait for the end."""
    for number in range(connections):
        crowd.enter(b"a" if number % 2 else b"b", 0, 0)
    print("ready", flush=True)
    sys.stdin.readline()


def push(crowd: Crowd, most: int, rounds: int) -> None:
    """Come and go at the limits while others do the same; says when it certainly had how many more or less."""
    print("ready", flush=True)
    sys.stdin.readline()
    places: list[int] = []
    changes: list[tuple[int, int]] = []
    for _ in range(rounds):
        if places and random.random() < 0.5:
            changes.append((time.monotonic_ns(), -1))
            crowd.leave(places.pop(random.randrange(len(places))))
        elif (place := crowd.enter(b"a", 2 * most, most)) != REFUSED:
            changes.append((time.monotonic_ns(), 1))
            places.append(place)
    for place in places:  # or whoever ends first would keep the others out
        changes.append((time.monotonic_ns(), -1))
        crowd.leave(place)
    print(json.dumps(changes), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    work, path, index, *numbers = sys.argv[1:]
    {"hold": hold, "push": push}[work](CrowdFile.attach(path).block(int(index)), *map(int, numbers))
