"""A fuzz input as a stream that arrives in pieces: four bytes of setup, then the stream itself."""

from typing import NamedTuple

SETUP_BYTES = 4
LIMITS = ((65536, 1 << 20), (200, 64), (90, 10), (40, 5))
"""Pairs of head and body limit; small ones so that short inputs reach them."""


class Cuts(NamedTuple):
    stream: bytes
    pieces: list[bytes]
    limits: tuple[int, int]
    flags: int
    """What is left of the first byte, for the target to use."""


def cut(data: bytes) -> Cuts:
    """The first byte chooses limits and flags, the other three are the sizes of the first three pieces."""
    setup, stream = data[:SETUP_BYTES].ljust(SETUP_BYTES, b"\0"), data[SETUP_BYTES:]
    pieces, rest = [], stream
    for size in setup[1:]:
        pieces.append(rest[:size])
        rest = rest[size:]
    return Cuts(stream, [*pieces, rest], LIMITS[setup[0] & 3], setup[0] >> 2)


def setup(flags: int = 0, limits: int = 0, sizes: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    """The bytes that make `cut` do this."""
    return bytes([flags << 2 | limits, *(min(size, 255) for size in sizes)])


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]
