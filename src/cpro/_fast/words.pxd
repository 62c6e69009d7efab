"""A dictionary of byte strings: text -> its number, in the order of first appearance."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cpro._fast.growing cimport Buffer
from cpro._fast.hashing cimport SipKey


cdef struct Word:
    uint64_t hash
    size_t at                       # of its bytes in `texts`, behind their length
    uint32_t size
    uint32_t unused


cdef struct Words:
    Buffer texts                    # Native strings, in order
    Buffer entries                  # Word, in order
    uint32_t* slots                 # number + 1, 0: free
    size_t mask                     # slots - 1; slots are a power of two, or 0
    uint32_t count
    uint32_t last                   # the one that was asked for last


cdef int word_of(Words* words, const SipKey* key, const uint8_t* text, uint64_t size) noexcept nogil
cdef void forget_words(Words* words, uint32_t count) noexcept nogil
cdef void release_words(Words* words) noexcept nogil
