"""One connection to the application backend; see the .pyx."""

from cpro._fast.http1 cimport Response, ResponseParser


cdef class Carrier:
    cdef object owner               # the pool that dialled us
    cdef object loop_time
    cdef object transport           # owns us; None before it is made
    cdef object drop_names          # headers that are not for the backend
    cdef ResponseParser parser
    cdef object exchange            # None while free
    cdef bytes keep_alive           # the Keep-Alive value `idle_limit_s` was read from
    cdef double idle_limit_s
    cdef public bint is_fresh
    cdef readonly double idle_since_s
    cdef public double reuse_until_s

    cdef int complete(self, Response response) except -1
    cdef int fail(self, object failure) except -1
    cdef object release(self)
    cdef bint is_in_step(self) except -1
    cdef int note_keep_alive(self, bytes value) except -1
    cdef bint has_unread_input(self) except -1
