"""HTTP/1.1 for our doors and our client; see the .pyx."""

from libc.stdint cimport uint8_t, uint32_t

from cpro._fast.http1_message cimport Field, Message, MessageParser


cdef class Request(Message):
    pass


cdef class Response(Message):
    pass


cdef class RequestParser(MessageParser):
    cdef int on_target(self, Message m, const uint8_t *p, uint32_t start, uint32_t end) except -1
    cdef int on_absolute(self, Message m, const uint8_t *p, uint32_t start, uint32_t end) except -1


cdef class ResponseParser(MessageParser):
    cdef bint is_head
    cdef readonly bint started
    cdef bint excess

    cdef int ready(self, bint is_head) except -1
    cdef Response reply(self)
    cdef Response deliver(self, Response response)


cdef bytes forwarded(Request request, bytes head_prefix, tuple drop)
