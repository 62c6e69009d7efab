"""Dictionaries for LowCardinality columns: open addressing over the bytes themselves, no Python object per word.

Slots hold numbers, the words lie one behind the other in Native form, ready to be sent. Clients choose some of the
words (name and version of their SDK), so the hash is keyed. At most half of the slots are taken.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from cpro._fast.growing cimport append_text, release, reserve
from cpro._fast.hashing cimport SipKey, sip13

cdef enum:
    LEAST_SLOTS = 64
    MOST_WORDS = 0x7fffffff


cdef inline Word* entry_of(Words* words, uint32_t number) noexcept nogil:
    return <Word*>words.entries.at + number


cdef inline bint is_word(Words* words, uint32_t number, const uint8_t* text, uint64_t size) noexcept nogil:
    cdef Word* entry = entry_of(words, number)
    return entry.size == size and memcmp(words.texts.at + entry.at, text, size) == 0


cdef int word_of(Words* words, const SipKey* key, const uint8_t* text, uint64_t size) noexcept nogil:
    """The number of a word, a new one if it is new. -1: no memory, nothing changed."""
    cdef uint64_t hash_
    cdef size_t slot
    cdef uint32_t number
    if words.count and is_word(words, words.last, text, size):
        return words.last
    if <size_t>words.count * 2 >= words.mask and widen(words) < 0:
        return -1
    hash_ = sip13(key, 0, text, size)
    slot = hash_ & words.mask
    while words.slots[slot]:
        number = words.slots[slot] - 1
        if entry_of(words, number).hash == hash_ and is_word(words, number, text, size):
            words.last = number
            return number
        slot = (slot + 1) & words.mask
    return add_word(words, hash_, slot, text, size)


cdef int add_word(Words* words, uint64_t hash_, size_t slot, const uint8_t* text, uint64_t size) noexcept nogil:
    cdef Word* entry
    if size > MOST_WORDS or words.count >= MOST_WORDS or reserve(&words.entries, sizeof(Word)) < 0:
        return -1
    if append_text(&words.texts, text, size) < 0:
        return -1
    entry = entry_of(words, words.count)
    entry.hash, entry.at, entry.size = hash_, words.texts.used - size, <uint32_t>size
    words.entries.used += sizeof(Word)
    words.last = words.count
    words.count += 1
    words.slots[slot] = words.count
    return words.last


cdef int widen(Words* words) noexcept nogil:
    cdef size_t room = (words.mask + 1) * 4 if words.mask else LEAST_SLOTS
    cdef uint32_t* slots = <uint32_t*>calloc(room, sizeof(uint32_t))
    if slots == NULL:
        return -1
    free(words.slots)
    words.slots, words.mask = slots, room - 1
    place_all(words)
    return 0


cdef void place_all(Words* words) noexcept nogil:
    """Into slots that are all free."""
    cdef uint32_t number
    cdef size_t slot
    for number in range(words.count):
        slot = entry_of(words, number).hash & words.mask
        while words.slots[slot]:
            slot = (slot + 1) & words.mask
        words.slots[slot] = number + 1


cdef void forget_words(Words* words, uint32_t count) noexcept nogil:
    """All but the first `count`; keeps the memory."""
    if count >= words.count:
        return
    words.texts.used = 0
    if count:
        words.texts.used = entry_of(words, count - 1).at + entry_of(words, count - 1).size
    words.count, words.last, words.entries.used = count, 0, count * sizeof(Word)
    memset(words.slots, 0, (words.mask + 1) * sizeof(uint32_t))
    place_all(words)


cdef void release_words(Words* words) noexcept nogil:
    free(words.slots)
    release(&words.texts)
    release(&words.entries)
    memset(words, 0, sizeof(Words))
