import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.hashing import fnv1a64, identity, jump, siphash13

# /work/shared/reference/centrifugo.md §7: key, FNV-1a 64, shard of 2, 3, 4, 8, 16
CENTRIFUGO = [
    ("", 0xCBF29CE484222325, (1, 1, 1, 1, 13)),
    ("1", 0xAF63AC4C86019AFC, (1, 2, 2, 2, 2)),
    ("42", 0x07EE7E07B4B19223, (1, 1, 1, 4, 15)),
    ("user:42", 0x6C151EA4DCD221C2, (1, 1, 1, 1, 15)),
    ("chat:index", 0x4E648CA6BAF3D6B9, (0, 0, 0, 0, 0)),
    ("news", 0xE5495BBAA03A6526, (1, 2, 3, 3, 3)),
    ("$private:room", 0x70D16D172AEA14D7, (0, 0, 3, 3, 3)),
    ("dialog#1,2", 0x69F891FFF725AFD3, (0, 2, 2, 2, 2)),
    ("rate_limit_test", 0x421E7137DA1F1148, (1, 2, 3, 3, 15)),
    ("канал", 0x5BA05FA0749D2D79, (1, 2, 2, 6, 8)),
    ("a" * 64, 0xDB007849F35EBBE5, (0, 0, 3, 3, 3)),
    ("00000000-0000-0000-0000-000000000000", 0x7C384C6218F299F1, (1, 1, 1, 1, 11)),
]
GUAVA_SHARDS_OF_100 = [0, 55, 62, 8, 45, 59, 86, 97, 82, 59, 73, 37, 17, 56, 86, 21, 90, 37, 38, 83]


@pytest.mark.parametrize(("key", "hashed", "shards"), CENTRIFUGO)
def test_shards_are_those_of_centrifugo(key: str, hashed: int, shards: tuple[int, ...]):
    assert fnv1a64(key.encode()) == hashed
    assert tuple(jump(hashed, n) for n in (2, 3, 4, 8, 16)) == shards


def test_jump_gives_guavas_golden_values():
    assert [jump(seed, 100) for seed in range(20)] == GUAVA_SHARDS_OF_100


@given(st.integers(0, 2**64 - 1), st.integers(1, 1000))
def test_growing_moves_keys_to_the_new_shard_only(hashed: int, n: int):
    assert jump(hashed, n + 1) in (jump(hashed, n), n)


def test_no_shards_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        jump(1, 0)


def siphash13_in_python(key: bytes, data: bytes) -> int:
    mask = 2**64 - 1
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def left(word: int, bits: int) -> int:
        return (word << bits | word >> (64 - bits)) & mask

    def mix(rounds: int) -> None:
        for _ in range(rounds):
            v[0], v[2] = (v[0] + v[1]) & mask, (v[2] + v[3]) & mask
            v[1], v[3] = left(v[1], 13) ^ v[0], left(v[3], 16) ^ v[2]
            v[0] = left(v[0], 32)
            v[0], v[2] = (v[0] + v[3]) & mask, (v[2] + v[1]) & mask
            v[3], v[1] = left(v[3], 21) ^ v[0], left(v[1], 17) ^ v[2]
            v[2] = left(v[2], 32)

    padded = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) & 255])
    for place in range(0, len(padded), 8):
        word = int.from_bytes(padded[place : place + 8], "little")
        v[3] ^= word
        mix(1)
        v[0] ^= word
    v[2] ^= 0xFF
    mix(3)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=300))
def test_siphash_agrees_with_the_paper(key: bytes, data: bytes):
    assert siphash13(key, data) == siphash13_in_python(key, data)


def test_siphash_agrees_with_cpython():
    texts = [b"x" * length for length in range(1, 40)]
    script = "import sys; print(sys.hash_info.algorithm, *(hash(b'x' * n) for n in range(1, 40)))"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout
    algorithm, *hashes = printed.split()
    if algorithm != "siphash13":
        pytest.skip(f"this Python hashes with {algorithm}")
    assert [int(hashed) % 2**64 for hashed in hashes] == [siphash13(bytes(16), text) for text in texts]


def test_another_key_gives_another_hash():
    assert siphash13(bytes(16), b"42") != siphash13(bytes(15) + b"\1", b"42")


def test_a_short_key_is_an_error():
    with pytest.raises(ValueError, match="16 bytes"):
        siphash13(b"short", b"42")


def test_identity_tells_where_the_parts_end():
    assert (
        len({identity("a", "bc"), identity("ab", "c"), identity("abc"), identity("abc", ""), identity("", "abc")}) == 5
    )


def test_identity_is_the_same_on_all_nodes():
    assert identity("user_command", "publish", "1000000000") == 0x4816DD5C2A29BB11
    assert identity() != 0
