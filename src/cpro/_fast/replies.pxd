"""Replies and pushes of Centrifugo's client protocol, as views over the payload they came in."""

from libc.stdint cimport int64_t, uint8_t

from cpro._fast.jsonscan cimport Text

cdef enum:                          # slots of a Reply
    CHANNEL = 0, REASON, CLIENT, VERSION, SESSION, NODE, CURSOR, DATA, TEXT_SLOTS

cdef enum:
    ID = 0, CODE, TEMPORARY, NUMBER, PING, PONG, EXPIRES, TTL, FLAG, TYPE, PHASE, NUMBER_SLOTS


cdef class Reply:
    cdef bytes payload
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t end
    cdef int result_at              # Protobuf: inside of the connect result, up to result_end
    cdef int result_end
    cdef int subs_at                # JSON: where the object of subscriptions begins; 0: there is none
    cdef uint8_t op
    cdef bint protobuf
    cdef Text[TEXT_SLOTS] texts
    cdef int64_t[NUMBER_SLOTS] numbers

    cdef str text(self, int slot)
