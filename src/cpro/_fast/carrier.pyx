"""One connection to the application backend: carries one exchange at a time (no pipelining).

A protocol as asyncio's transports call it, without a loop of its own. Free, or carrying an exchange; after `drop`
neither. Whatever goes wrong, the transport is aborted rather than closed: a graceful close waits for a peer that may
never read again.

Ownership. A pool's dial makes a carrier, and the pool owns it until it has heard `on_lost`. An exchange, one request and
the one outcome its sender gets, is made by the client for each send and gone when its outcome is told; while it is
carried its `holder` is the carrier. The owner is called after the carrier's own state is settled.
"""

import re
import select

cimport cython
from libc.stdint cimport uint8_t

from cpro._fast.http1 cimport Response, ResponseParser

from cpro._fast.http1 import build_forward
from cpro.errors import ProtocolError

MAX_HEAD_BYTES = 65536
MAX_IDLE_S = 60.0
KEEP_ALIVE_MARGIN_S = 1.0  # how long before the peer's own limit an idle connection is no longer used
PEEK_AFTER_S = 0.5  # peers close idle connections after seconds: a busy one needn't be looked at

_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


@cython.auto_pickle(False)
@cython.freelist(64)
cdef class Exchange:

    def __init__(self, request, on_done, endpoint, bint may_repeat, double deadline_s):
        self.request = request
        self.on_done = on_done
        self.endpoint = endpoint
        self.may_repeat = may_repeat
        self.deadline_s = deadline_s
        self.refused_by = ()


@cython.auto_pickle(False)
cdef class Carrier:

    def __init__(self, owner, loop_time, Py_ssize_t max_reply_bytes, tuple drop_names not None):
        self.owner = owner
        self.loop_time = loop_time
        self.drop_names = drop_names
        self.parser = ResponseParser(MAX_HEAD_BYTES, max_reply_bytes)
        self.is_fresh = True
        self.idle_limit_s = MAX_IDLE_S
        self.idle_since_s = loop_time()
        self.reuse_until_s = self.idle_since_s + self.idle_limit_s

    # -- called by the pool

    def carry(self, Exchange exchange not None):
        self.exchange = exchange
        exchange.holder = self
        self.parser.expect()
        self.transport.write(build_forward(exchange.request, exchange.endpoint.head_prefix, self.drop_names))

    def is_open(self):
        return self.transport is not None and not self.transport.is_closing()

    def is_reusable(self, double now_s):
        if now_s >= self.reuse_until_s or self.transport is None or self.transport.is_closing():
            return False
        return now_s - self.idle_since_s < PEEK_AFTER_S or not self.has_unread_input()

    def withdraw(self, Exchange exchange):
        self.release()
        self.drop()

    def drop(self):
        if self.transport is not None:
            self.transport.abort()

    # -- called by the transport

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, bytes data not None):
        cdef Response response
        if self.exchange is None:
            self.drop()
            return
        try:
            self.parser.feed(data)
            response = self.parser.reply()
        except ProtocolError:
            self.fail("BROKEN")
            return
        if response is not None:
            self.complete(response)

    def eof_received(self):
        cdef Response response = None
        if self.exchange is None:
            self.drop()
            return
        try:
            response = self.parser.feed_eof()
        except ProtocolError:
            pass
        if response is not None:
            self.complete(response)
        else:
            self.fail("RESET")

    def connection_lost(self, exc):
        if self.exchange is not None:
            self.fail("RESET")
        self.owner.on_lost(self)

    def pause_writing(self):
        pass  # a request is bounded, and nothing follows it before its answer

    def resume_writing(self):
        pass

    # -- within

    cdef int complete(self, Response response) except -1:
        cdef Exchange exchange = self.release()
        cdef bint is_free = response.keep_alive and self.is_in_step()
        if is_free:
            self.is_fresh = False
            if self.keep_alive is not None or response.find(<const uint8_t *>b"keep-alive", 10, 0) >= 0:
                self.note_keep_alive(response.header(b"keep-alive"))
            self.idle_since_s = self.loop_time()
            self.reuse_until_s = self.idle_since_s + self.idle_limit_s
        else:
            self.drop()
        self.owner.on_reply(self, is_free, exchange, response)
        return 0

    cdef int fail(self, object failure) except -1:
        cdef bint was_stale = not self.is_fresh and failure == "RESET" and not self.parser.started
        cdef Exchange exchange = self.release()
        self.drop()
        self.owner.on_failure(exchange, failure, was_stale)
        return 0

    cdef Exchange release(self):
        cdef Exchange exchange = self.exchange
        self.exchange = None
        exchange.holder = None
        return exchange

    cdef bint is_in_step(self) except -1:
        """Whether the next reply will be the next request's: nothing read beyond this one, nothing left to write."""
        return not self.parser.excess and self.transport.get_write_buffer_size() == 0

    cdef int note_keep_alive(self, bytes value) except -1:
        if value == self.keep_alive:
            return 0
        self.keep_alive = value
        match = _KEEP_ALIVE_TIMEOUT.search(value) if value else None
        self.idle_limit_s = min(MAX_IDLE_S, int(match[1]) - KEEP_ALIVE_MARGIN_S) if match else MAX_IDLE_S
        return 0

    cdef bint has_unread_input(self) except -1:
        """Bytes or an end of stream that the kernel has and the loop has not read yet (poll(2))."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))
