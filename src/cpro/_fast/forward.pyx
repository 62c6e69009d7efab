"""The way of an event to the application backend and back, as far as it needs no thinking.

`Way` sends to the endpoints of a route in turn; what happens when one has no idle connection is its pool's business.
`Forward` is the handler of one event: it makes an `Errand` of each request, which is told the outcome, counts it and
hands on the reply. It knows the few bodies that backends say most of the time; the door that makes it judges the rest.

Ownership. An errand is held by its exchange, and gone with it.
"""

cimport cython
from libc.stdint cimport int64_t

from cpro._fast.carrier cimport Depot
from cpro._fast.counters cimport Recorder
from cpro._fast.exchange cimport Exchange, Exchanges, new_exchange
from cpro._fast.http1 cimport Request, Response

cdef enum:
    OK = 0                          # the place of an answer that Centrifugo can read


@cython.auto_pickle(False)
cdef class Way:

    def __init__(self, Exchanges exchanges not None, bint may_repeat):
        self.exchanges = exchanges
        self.may_repeat = may_repeat

    def send(self, Request request not None, on_done):
        self.start(request, on_done)

    # -- within

    cdef int start(self, Request request, object on_done) except -1:
        cdef Exchanges exchanges = self.exchanges
        cdef Exchange exchange
        cdef Depot depot
        cdef double now_s
        if exchanges.closing:
            exchanges.refuse(on_done)
            return 0
        now_s = exchanges.loop_time()
        endpoint, target = next(self.turn)
        depot = target
        exchange = new_exchange(request, on_done, self, endpoint, self.may_repeat, now_s + exchanges.timeout_s)
        exchanges.add(exchange)
        if not depot.try_carry(exchange, now_s):
            depot.wait(exchange)
        return 0


@cython.auto_pickle(False)
@cython.final
cdef class Forward:

    def __init__(self, Way way not None, Recorder count not None, clock, dict plain not None, judge):
        self.way = way
        self.count = count
        self.clock = clock
        self.plain = plain
        self.judge = judge

    def __call__(self, operation, Request request not None, respond):
        cdef Errand errand = Errand.__new__(Errand)
        errand.forward = self
        errand.respond = respond
        errand.sent_ns = self.clock()
        self.way.start(request, errand)

    cdef int conclude(self, object respond, int64_t sent_ns, object outcome) except -1:
        cdef object reply = None
        cdef int64_t place = OK
        if type(outcome) is Response and (<Response>outcome).code == 200:
            reply = self.plain.get((<Response>outcome).body)
        if reply is None:
            place, reply = self.judge(outcome)
        self.count.record(place, self.clock() - sent_ns)
        respond(reply)
        return 0


@cython.auto_pickle(False)
@cython.final
@cython.freelist(64)
cdef class Errand:
    """Told the outcome of one request of a `Forward`."""

    def __call__(self, outcome):
        self.forward.conclude(self.respond, self.sent_ns, outcome)
