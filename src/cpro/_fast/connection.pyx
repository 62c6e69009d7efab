"""One accepted HTTP connection: bytes to requests, and answers to bytes in the order of the requests.

A protocol as asyncio's transports call it, without a loop of its own. One request is in progress at a time; what is
pipelined behind waits in the parser, and beyond `PIPELINED_LIMIT_BYTES` in the socket.

Ownership. The transport owns the connection, the connection its parser and the request in progress; the server only
knows it, from `connection_made` to `connection_lost`. Deadlines are the server's business (`watch`, `unwatch`), since
it has the clock of the loop. A handler that answers later holds the connection until it has called `answer`.
"""

cimport cython

from cpro._fast.http1 cimport AT_REST, IN_BODY, Request, RequestParser, replied

from cpro._fast.http1 import build_status
from cpro.errors import ProtocolError

HEAD_LIMIT_BYTES = 64 * 1024
PIPELINED_LIMIT_BYTES = 64 * 1024

HEAD_TIMEOUT_S = 10.0
BODY_STALL_S = 10.0
WRITE_STALL_S = 60.0
LINGER_S = 2.0

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STAYS_OPEN = b"Connection: keep-alive\r\n"  # said to HTTP/1.0 clients only: the others expect it (RFC 9112 section 9.3)


@cython.auto_pickle(False)
cdef class Connection:

    def __init__(self, server):
        self.server = server
        self.handler = server.handler
        self.clock = server.clock
        self.parser = RequestParser(HEAD_LIMIT_BYTES, server.max_body_bytes)
        self.reading = True

    @property
    def is_idle(self) -> bool:
        return not self.busy and self.parser.stage() == AT_REST

    @property
    def peer(self) -> str:
        name = None if self.transport is None else self.transport.get_extra_info("peername")
        return name[0] if isinstance(name, tuple) else ""

    # -- called by the transport

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, exc):
        self.closing = True
        self.transport = None
        self.unwatch()
        self.server.connections.discard(self)

    def data_received(self, bytes data not None):
        if self.closing:
            return
        self.parser.push(data)
        if self.busy or self.paused:
            self.hold_back()
        else:
            self.serve()

    def eof_received(self):
        """A peer that has said everything still gets its answers."""
        self.eof = True
        return self.busy or self.paused

    def pause_writing(self):
        self.paused = True
        self.watch(WRITE_STALL_S)

    def resume_writing(self):
        self.paused = False
        if self.closing:
            self.watch(LINGER_S)
            return
        self.unwatch()
        if not self.busy:
            self.serve()

    # -- called by the handler and the server

    def answer(self, answer):
        cdef Request request = self.request
        self.busy = False
        if self.closing or request is None:
            return
        self.write(request, answer)
        if not self.closing and not self.paused:
            self.serve()

    def detach(self):
        transport, self.transport = self.transport, None
        self.closing = True
        self.unwatch()
        self.server.connections.discard(self)
        return transport, self.parser.take_rest()

    def drain(self):
        self.draining = True

    def close(self):
        self.closing = True
        if self.transport is not None:
            self.transport.close()

    def abort(self):
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    # -- within

    cdef int serve(self) except -1:
        """Answer what is complete; errors of the peer, and bugs of ours, end here."""
        try:
            return self.serve_all()
        except ProtocolError as error:
            return self.refuse(error.status)
        except Exception as bug:  # it must not take the other connections along
            self.server.report(bug)
            return self.refuse(500)

    cdef int serve_all(self) except -1:
        cdef Request request
        cdef object answer
        cdef object now_ns = self.clock()
        while True:
            request = <Request>self.parser.advance()
            if request is None:
                self.request = None
                return self.await_more()
            if self.watched:
                self.unwatch()
            self.request = request
            self.busy = True
            answer = self.handler(request, self, now_ns)
            if answer is None:
                return self.hold_back()
            self.busy = False
            self.write(request, answer)
            if self.closing or self.paused:
                return 0

    cdef int await_more(self) except -1:
        """All that was complete is answered: wait for the rest of what has begun, or for the next request."""
        cdef int stage
        if self.eof:
            self.close()
            return 0
        if not self.reading:
            self.reading = True
            self.transport.resume_reading()
        stage = self.parser.stage()
        if stage == AT_REST:
            return 0
        if self.parser.take_continue():
            self.transport.write(CONTINUE)
        if stage == IN_BODY:
            return self.watch(BODY_STALL_S)
        if not self.watched:
            return self.watch(HEAD_TIMEOUT_S)
        return 0

    cdef int hold_back(self) except -1:
        """What piles up behind an answer that is not there yet is bounded."""
        cdef Py_ssize_t held_bytes = self.parser.held_bytes()
        if held_bytes and self.reading and held_bytes > PIPELINED_LIMIT_BYTES:
            self.reading = False
            self.transport.pause_reading()
        return 0

    cdef int write(self, Request request, object answer) except -1:
        cdef bint keep_alive = request.keep_alive and not self.draining
        cdef bytes extra = STAYS_OPEN if keep_alive and request.minor_version == 0 else b""
        cdef int status = answer.status
        cdef bytes body = answer.body, content_type = answer.content_type
        if body is None or content_type is None:
            raise TypeError("an answer's body and content type are bytes")
        if status == 200:
            self.transport.write(replied(body, keep_alive, content_type, extra))
        else:
            self.transport.write(build_status(status, keep_alive, extra + <bytes>answer.extra, body, content_type))
        return 0 if keep_alive else self.linger()

    cdef int refuse(self, int status) except -1:
        self.transport.write(build_status(status, False))
        return self.linger()

    cdef int linger(self) except -1:
        """Close so that the peer can still read our last answer: a reset would throw it away (RFC 9112 section 9.6)."""
        self.closing = True
        self.watch(WRITE_STALL_S if self.paused else LINGER_S)
        if self.eof or not self.transport.can_write_eof():
            self.transport.close()
            return 0
        if not self.reading:
            self.transport.resume_reading()
        self.transport.write_eof()
        return 0

    cdef int watch(self, object limit_s) except -1:
        self.watched = True
        self.server.watch(self, limit_s)
        return 0

    cdef int unwatch(self) except -1:
        if self.watched:
            self.watched = False
            self.server.unwatch(self)
        return 0
