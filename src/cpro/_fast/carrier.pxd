"""One connection to the application backend, and where those to one origin wait for work; see the .pyx."""

from cpro._fast.exchange cimport Exchange, Exchanges
from cpro._fast.http1 cimport Response, ResponseParser


cdef class Depot:
    cdef readonly Exchanges exchanges
    cdef readonly list idle         # of Carrier, the youngest last
    cdef readonly object waiting    # exchanges that a free connection goes to before it may be idle
    cdef public object health
    cdef public double sweep_at_s   # when the first idle one is closed, in the loop's time
    cdef public bint closing        # nothing may be idle

    cdef bint try_carry(self, Exchange exchange, double now_s) except -1
    cdef int take_back(self, Carrier carrier) except -1


cdef class Carrier:
    cdef Depot depot                # the pool that dialled us
    cdef object loop_time
    cdef object transport           # owns us; None before it is made
    cdef tuple drop_names           # headers that are not for the backend
    cdef ResponseParser parser
    cdef Exchange exchange          # None while free
    cdef bytes keep_alive           # the Keep-Alive value `idle_limit_s` was read from
    cdef double max_idle_s          # where the peer does not say how long it waits
    cdef double idle_limit_s
    cdef public bint is_fresh
    cdef readonly double idle_since_s
    cdef public double reuse_until_s

    cdef int take(self, Exchange exchange) except -1
    cdef bint may_carry(self, double now_s) except -1
    cdef int complete(self, Response response) except -1
    cdef int fail(self, object failure) except -1
    cdef Exchange release(self)
    cdef bint is_in_step(self) except -1
    cdef int note_keep_alive(self, bytes value) except -1
    cdef bint has_unread_input(self) except -1
