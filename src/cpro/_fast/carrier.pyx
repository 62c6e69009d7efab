"""One connection to the application backend, and the depot where those to one origin wait for work.

A carrier carries one exchange at a time (no pipelining). It is a protocol as asyncio's transports call it, without a
loop of its own. Free, or carrying an exchange; after `drop` neither. Whatever goes wrong, the transport is aborted
rather than closed: a graceful close waits for a peer that may never read again.

The depot has what happens when all is well: an idle connection takes an exchange, its reply comes, the sender is told,
and it is idle again. Everything else is a pool's in Python, which extends `Depot`.

Ownership. A pool's dial makes a carrier, and the pool owns it until it has heard `on_lost`. While an exchange is carried
its `holder` is the carrier. The depot is told after the carrier's own state is settled.
"""

import re
import select

cimport cython
from libc.math cimport INFINITY
from libc.stdint cimport uint8_t

from cpro._fast.exchange cimport Exchange, Exchanges
from cpro._fast.http1 cimport Response, ResponseParser, forwarded

from cpro.errors import ProtocolError

MAX_HEAD_BYTES = 65536
MAX_IDLE_S = 60.0
KEEP_ALIVE_MARGIN_S = 1.0  # how long before the peer's own limit an idle connection is no longer used
PEEK_AFTER_S = 0.5  # peers close idle connections after seconds: a busy one needn't be looked at

_KEEP_ALIVE_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


@cython.auto_pickle(False)
cdef class Depot:

    def __init__(self, Exchanges exchanges not None, waiting):
        self.exchanges = exchanges
        self.idle = []
        self.waiting = waiting
        self.sweep_at_s = INFINITY

    def carry(self, Exchange exchange not None, double now_s):
        return self.try_carry(exchange, now_s)

    # -- within

    cdef bint try_carry(self, Exchange exchange, double now_s) except -1:
        cdef Carrier carrier
        while self.idle:
            carrier = <Carrier>self.idle.pop()
            if carrier.may_carry(now_s):
                carrier.take(exchange)
                return True
            carrier.drop()
        return False

    cdef int take_back(self, Carrier carrier) except -1:
        if self.closing or carrier.reuse_until_s < self.sweep_at_s or self.waiting:
            self.on_free(carrier)
        else:
            self.idle.append(carrier)
        return 0


@cython.auto_pickle(False)
@cython.final
cdef class Carrier:

    def __init__(
        self, Depot depot not None, Py_ssize_t max_reply_bytes, tuple drop_names not None, double max_idle_s=MAX_IDLE_S,
    ):
        self.depot = depot
        self.loop_time = depot.exchanges.loop_time
        self.drop_names = drop_names
        self.parser = ResponseParser(MAX_HEAD_BYTES, max_reply_bytes)
        self.is_fresh = True
        self.max_idle_s = self.idle_limit_s = max_idle_s
        self.idle_since_s = self.loop_time()
        self.reuse_until_s = self.idle_since_s + self.idle_limit_s

    # -- called by the pool

    def carry(self, Exchange exchange not None):
        self.take(exchange)

    def is_open(self):
        return self.transport is not None and not self.transport.is_closing()

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
        self.depot.on_lost(self)

    def pause_writing(self):
        pass  # a request is bounded, and nothing follows it before its answer

    def resume_writing(self):
        pass

    # -- within

    cdef int take(self, Exchange exchange) except -1:
        self.exchange = exchange
        exchange.holder = self
        self.parser.ready(False)
        self.transport.write(forwarded(exchange.request, exchange.endpoint.head_prefix, self.drop_names))
        return 0

    cdef bint may_carry(self, double now_s) except -1:
        """False when the peer has closed it, may be about to, or has sent something unasked."""
        if now_s >= self.reuse_until_s or self.transport is None or self.transport.is_closing():
            return False
        return now_s - self.idle_since_s < PEEK_AFTER_S or not self.has_unread_input()

    cdef int complete(self, Response response) except -1:
        cdef Exchange exchange = self.release()
        if response.keep_alive and self.is_in_step():
            self.is_fresh = False
            if self.keep_alive is not None or response.find(<const uint8_t *>b"keep-alive", 10, 0) >= 0:
                self.note_keep_alive(response.header(b"keep-alive"))
            self.idle_since_s = self.loop_time()
            self.reuse_until_s = self.idle_since_s + self.idle_limit_s
            self.depot.take_back(self)
        else:
            self.drop()
        if self.depot.health.failures:
            self.depot.health.on_answer()
        self.depot.exchanges.settle(exchange, response)
        return 0

    cdef int fail(self, object failure) except -1:
        cdef bint was_stale = not self.is_fresh and failure == "RESET" and not self.parser.started
        cdef Exchange exchange = self.release()
        self.drop()
        self.depot.on_failure(exchange, failure, was_stale)
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
        self.idle_limit_s = min(self.max_idle_s, int(match[1]) - KEEP_ALIVE_MARGIN_S) if match else self.max_idle_s
        return 0

    cdef bint has_unread_input(self) except -1:
        """Bytes or an end of stream that the kernel has and the loop has not read yet (poll(2))."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))
