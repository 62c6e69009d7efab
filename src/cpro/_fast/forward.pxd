"""The way of an event to the application backend and back; see the .pyx."""

from libc.stdint cimport int64_t

from cpro._fast.counters cimport Recorder
from cpro._fast.exchange cimport Exchanges
from cpro._fast.http1 cimport Request


cdef class Way:
    cdef readonly Exchanges exchanges
    cdef readonly bint may_repeat
    cdef public object turn         # iterator of (endpoint, Depot), endless

    cdef int start(self, Request request, object on_done) except -1


cdef class Forward:
    cdef Way way
    cdef Recorder count
    cdef object clock               # in ns
    cdef dict plain                 # replies to those bodies of a 200 that need no reading
    cdef object judge               # any other outcome's place for `count`, and the reply

    cdef int conclude(self, object respond, int64_t sent_ns, object outcome) except -1


cdef class Errand:
    cdef Forward forward
    cdef object respond
    cdef int64_t sent_ns
