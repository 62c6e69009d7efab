"""Requests to the application backend whose senders are owed an outcome.

Here is what every request needs: noted when it is sent, struck off when its outcome is told. What makes timers, drains
and reports is a client in Python, which extends `Exchanges`.

Ownership. An exchange, one request and the one outcome its sender gets, is made for each send. `Exchanges` holds it
until its outcome is told; that it is held is what makes the outcome exactly one.
"""

cimport cython

from cpro._fast.http1 cimport Request


@cython.auto_pickle(False)
@cython.final
@cython.freelist(64)
cdef class Exchange:

    def __init__(self):
        raise TypeError("exchanges are made by sending")


cdef Exchange new_exchange(
    Request request, object on_done, object route, object endpoint, bint may_repeat, double deadline_s
):
    cdef Exchange exchange = Exchange.__new__(Exchange)
    exchange.request = request
    exchange.on_done = on_done
    exchange.route = route
    exchange.endpoint = endpoint
    exchange.may_repeat = may_repeat
    exchange.deadline_s = deadline_s
    exchange.refused_by = ()
    return exchange


@cython.auto_pickle(False)
cdef class Exchanges:

    def __init__(self, loop_time, double timeout_s):
        self.owed = {}
        self.loop_time = loop_time
        self.timeout_s = timeout_s

    @property
    def in_flight(self) -> int:
        return len(self.owed)

    def tell(self, Exchange exchange not None, outcome):
        self.settle(exchange, outcome)

    # -- within

    cdef int add(self, Exchange exchange) except -1:
        self.owed[exchange] = None
        if not self.watched:
            self.watch(exchange.deadline_s)
        return 0

    cdef int settle(self, Exchange exchange, object outcome) except -1:
        if self.owed.pop(exchange, self) is self:   # told already
            return 0
        if self.closing and not self.owed:
            self.on_last()
        try:
            exchange.on_done(outcome)
        except Exception as error:  # the sender's bug must not cost other exchanges their connection
            self.report(error)
        return 0
