"""A command of Centrifugo's client protocol, as a view over the payload it came in."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from cpro._fast.jsonscan cimport Text

cdef enum Kind:                     # in the order of KINDS
    KIND_NONE, KIND_PONG, KIND_CONNECT, KIND_PING, KIND_SUBSCRIBE, KIND_UNSUBSCRIBE, KIND_PUBLISH, KIND_PRESENCE,
    KIND_PRESENCE_STATS, KIND_HISTORY, KIND_RPC, KIND_SEND, KIND_REFRESH, KIND_SUB_REFRESH,
    KIND_MAP_PUBLISH, KIND_MAP_REMOVE, KIND_TRACK, KIND_UNTRACK

cdef enum:                          # faults
    BAD_REQUEST = 107, MALFORMED = 3501

cdef enum:
    STRING_BYTES = 8                # Text.how: bytes that should be UTF-8, from Protobuf


cdef class Command:
    cdef bytes payload
    cdef readonly bytes encoded
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t end
    cdef Text channel_text
    cdef Text token_text
    cdef Text name_text
    cdef Text version_text
    cdef Text word_text             # method of rpc, cursor of subscribe
    cdef int flag_at                # JSON: where the value of `flag` begins; 0: there is none, likewise below
    cdef int flag_end
    cdef int dict_at
    cdef int dict_end
    cdef readonly int data_size
    cdef readonly int type
    cdef readonly int phase
    cdef readonly int limit
    cdef readonly int fault
    cdef readonly int64_t flag
    cdef readonly uint32_t id
    cdef uint8_t op                 # a Kind
    cdef readonly bint has_headers
    cdef readonly bint recover
    cdef bint removed
    cdef bint names_dictionary
    cdef bint protobuf

    cdef str text(self, const Text *text)

cdef Command new_command(bytes payload, Py_ssize_t start, Py_ssize_t end, bint protobuf)
# Marks it as malformed; -1.
cdef int fail(Command c) noexcept nogil
# Tells apart the kinds that share a request, once all of it is read.
cdef void settle(Command c) noexcept nogil
