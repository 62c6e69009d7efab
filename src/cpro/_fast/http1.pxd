"""HTTP/1.1 for our doors and our client; see the .pyx."""

from libc.stdint cimport uint8_t, uint32_t

from cpro._fast.http1_message cimport Field, Message, MessageParser


cdef enum:
    AT_REST, IN_HEAD, IN_BODY       # of a request: nothing of a next one is here; its head isn't complete; its body isn't


cdef class Request(Message):
    pass


cdef class Response(Message):
    pass


cdef class RequestParser(MessageParser):
    cdef int stage(self) noexcept
    cdef Py_ssize_t held_bytes(self) noexcept
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

cdef bytes replied(bytes body, bint keep_alive, bytes content_type, bytes extra)
