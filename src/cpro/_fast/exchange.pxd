"""Requests to the application backend whose senders are owed an outcome; see the .pyx."""

from cpro._fast.http1 cimport Request


cdef class Exchange:
    cdef readonly Request request
    cdef readonly object on_done    # told the one outcome
    cdef readonly object route
    cdef public object endpoint
    cdef readonly double deadline_s # in the loop's time
    cdef readonly bint may_repeat
    cdef public bint repeated       # sent a second time: only on a fresh connection
    cdef public tuple refused_by    # endpoints
    cdef public object holder       # whoever it is with: the pool while it waits, the carrier while it is carried


cdef class Exchanges:
    cdef readonly dict owed         # Exchange -> None, oldest first: they all have the same timeout
    cdef readonly object loop_time
    cdef readonly double timeout_s
    cdef public bint watched        # somebody looks after the oldest when its time is over
    cdef public bint closing        # no new ones

    cdef int add(self, Exchange exchange) except -1
    cdef int settle(self, Exchange exchange, object outcome) except -1


cdef Exchange new_exchange(
    Request request, object on_done, object route, object endpoint, bint may_repeat, double deadline_s)
