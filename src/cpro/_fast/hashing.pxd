"""SipHash-1-3 and small mixers, inline for the sibling modules."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy


cdef struct SipKey:
    uint64_t k0
    uint64_t k1


cdef inline uint64_t rotate_left(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef inline uint64_t read_word(const uint8_t* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[1] = rotate_left(v[1], 13) ^ v[0]
    v[0] = rotate_left(v[0], 32)
    v[2] += v[3]
    v[3] = rotate_left(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = rotate_left(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = rotate_left(v[1], 17) ^ v[2]
    v[2] = rotate_left(v[2], 32)


cdef inline uint64_t sip13(const SipKey* key, uint64_t domain, const uint8_t* data, size_t length) noexcept nogil:
    """SipHash-1-3 (Aumasson, Bernstein 2012); `domain` keeps kinds of keys apart, 0 is the plain function.

    The domain enters where SipHash's own 128-bit variant puts its 0xee: into v1 before the first word."""
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef size_t place = 0
    v[0] = key.k0 ^ 0x736f6d6570736575ULL
    v[1] = key.k1 ^ 0x646f72616e646f6dULL ^ domain
    v[2] = key.k0 ^ 0x6c7967656e657261ULL
    v[3] = key.k1 ^ 0x7465646279746573ULL
    while place + 8 <= length:
        word = read_word(data + place)
        v[3] ^= word
        sip_round(v)
        v[0] ^= word
        place += 8
    word = <uint64_t>length << 56
    while place < length:
        word |= <uint64_t>data[place] << (8 * (place & 7))
        place += 1
    v[3] ^= word
    sip_round(v)
    v[0] ^= word
    v[2] ^= 0xff
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline uint64_t mix(uint64_t word) noexcept nogil:
    """A bijection in which each bit depends on all (the finalizer of MurmurHash3, variant 13 of Stafford)."""
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ULL
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebULL
    return word ^ (word >> 31)


cdef uint64_t fnv1a(const uint8_t* data, size_t length) noexcept nogil
cdef int jump_to(uint64_t hash_, int shards) noexcept nogil
