"""One connection to the application backend; see the .pyx."""

from cpro._fast.http1 cimport Response, ResponseParser


cdef class Exchange:
    cdef readonly object request
    cdef readonly object on_done    # told the one outcome
    cdef public object endpoint
    cdef readonly bint may_repeat
    cdef readonly double deadline_s # in the loop's time
    cdef public bint repeated       # sent a second time: only on a fresh connection
    cdef public tuple refused_by    # endpoints
    cdef public object holder       # whoever it is with: the pool while it waits, the carrier while it is carried


cdef class Carrier:
    cdef object owner               # the pool that dialled us
    cdef object loop_time
    cdef object transport           # owns us; None before it is made
    cdef object drop_names          # headers that are not for the backend
    cdef ResponseParser parser
    cdef Exchange exchange          # None while free
    cdef bytes keep_alive           # the Keep-Alive value `idle_limit_s` was read from
    cdef double idle_limit_s
    cdef public bint is_fresh
    cdef readonly double idle_since_s
    cdef public double reuse_until_s

    cdef int complete(self, Response response) except -1
    cdef int fail(self, object failure) except -1
    cdef Exchange release(self)
    cdef bint is_in_step(self) except -1
    cdef int note_keep_alive(self, bytes value) except -1
    cdef bint has_unread_input(self) except -1
