"""One accepted HTTP connection; see the .pyx."""

from cpro._fast.http1 cimport Request, RequestParser


cdef class Connection:
    cdef object server              # what we belong to: limits, clock, the handler, who watches over deadlines
    cdef object handler
    cdef object clock
    cdef object transport           # owns us; None before it is made and after it is lost
    cdef RequestParser parser
    cdef Request request            # the one in progress
    cdef bint busy                  # it waits for its answer
    cdef bint paused                # the peer doesn't read what we wrote
    cdef bint reading               # the transport reads
    cdef bint closing               # nothing more is served; what arrives is thrown away
    cdef bint eof                   # the peer has said everything
    cdef bint draining              # the next answer is the last
    cdef bint watched               # the server has a deadline for us

    cdef int serve(self) except -1
    cdef int serve_all(self) except -1
    cdef int await_more(self) except -1
    cdef int hold_back(self) except -1
    cdef int write(self, Request request, object answer) except -1
    cdef int refuse(self, int status) except -1
    cdef int linger(self) except -1
    cdef int watch(self, object limit_s) except -1
    cdef int unwatch(self) except -1
