"""Hashes: keyed ones for what users choose, unkeyed ones for what nodes must agree on.

No state. `sip13` (in the pxd) is for tables whose keys an attacker picks. `fnv1a64` and `jump` pick a Redis shard
exactly as Centrifugo does (FNV-1a 64, then Lamping and Veach 2014). `identity` names a bucket, the same on all nodes.
Little-endian machines only (cas16.h admits no other).
"""

from libc.stdint cimport uint8_t, uint64_t
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE


cdef uint64_t fnv1a(const uint8_t* data, size_t length) noexcept nogil:
    cdef uint64_t state = 0xcbf29ce484222325ULL
    cdef size_t place
    for place in range(length):
        state = (state ^ data[place]) * 0x100000001b3ULL
    return state


cdef int jump_to(uint64_t hash_, int shards) noexcept nogil:
    cdef long long chosen = -1
    cdef long long following = 0
    while following < shards:
        chosen = following
        hash_ = hash_ * 2862933555777941757ULL + 1
        # The quotient first, then the product: another grouping rounds differently and moves keys.
        following = <long long>(<double>(chosen + 1) * (<double>(1LL << 31) / <double>((hash_ >> 33) + 1)))
    return <int>chosen


def siphash13(key: bytes, data: bytes) -> int:
    """SipHash-1-3 of `data` under a 16-byte key, 64 bits."""
    cdef SipKey words
    if len(key) != 16:
        raise ValueError("a SipHash key has 16 bytes")
    words.k0 = read_word(<const uint8_t*>PyBytes_AS_STRING(key))
    words.k1 = read_word(<const uint8_t*>PyBytes_AS_STRING(key) + 8)
    return sip13(&words, 0, <const uint8_t*>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))


def fnv1a64(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    return fnv1a(<const uint8_t*>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))


def jump(hash: int, n: int) -> int:  # noqa: A002
    """Which of `n` shards a 64-bit hash belongs to; growing n moves keys to the new shard only."""
    cdef int shards = n
    if shards < 1:
        raise ValueError("there must be at least one shard")
    return jump_to(<uint64_t>hash, shards)


def identity(*parts: str) -> int:
    """A stable, unkeyed 64-bit name of a sequence of strings; never 0, which means "none" to the tables."""
    cdef SipKey unkeyed
    cdef uint64_t name
    unkeyed.k0 = unkeyed.k1 = 0
    encoded = [part.encode() for part in parts]
    data = b"".join([len(part).to_bytes(4, "little") + part for part in encoded])
    name = sip13(&unkeyed, 0, <const uint8_t*>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    return name if name != 0 else 1
