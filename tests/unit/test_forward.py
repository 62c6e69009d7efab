"""A forwarded event: what is counted, and which reply goes on."""

import os

import pytest

from cpro._fast.counters import HISTOGRAM_SLOTS, CounterFile, Recorder
from cpro._fast.forward import Forward
from cpro.operation import Reply
from tests.unit.carrier_peers import Book, Road, Yard
from tests.unit.http_client_peers import make_request, reply

PLAIN = {b"{}": Reply(b"{}")}
JUDGED = Reply(b"judged")
OUTCOMES = 3


class Backend:
    """A forward with one idle connection, and the counters behind it."""

    def __init__(self, path: str) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self.file = CounterFile.create(path, 1, OUTCOMES + HISTOGRAM_SLOTS)
        self.book = Book()
        self.yard = Yard(self.book)
        self.carrier, self.wire = self.yard.park()
        self.now_ns = 1000
        self.judged: list[object] = []
        self.replies: list[Reply] = []
        recorder = Recorder(self.file.block(0), 0, OUTCOMES)
        self.forward = Forward(Road(self.book, self.yard), recorder, lambda: self.now_ns, PLAIN, self.judge)

    def judge(self, outcome: object) -> tuple[int, Reply]:
        self.judged.append(outcome)
        return 2, JUDGED

    def ask(self) -> None:
        assert self.forward(object(), make_request(), self.replies.append) is None
        assert not self.replies

    @property
    def counted(self) -> tuple[list[int], int]:
        """Requests by outcome, and the sum of their durations in ns."""
        totals = self.file.totals()
        return totals[:OUTCOMES], totals[-1]


@pytest.fixture
def backend(tmp_path):
    backend = Backend(str(tmp_path / "counters"))
    yield backend
    backend.file.close()


def test_plain_body_needs_no_judgement(backend):
    backend.ask()
    backend.now_ns += 250
    backend.carrier.data_received(reply(b"{}"))
    assert backend.replies == [PLAIN[b"{}"]]
    assert backend.replies[0] is PLAIN[b"{}"]
    assert not backend.judged
    assert backend.counted == ([1, 0, 0], 250)


@pytest.mark.parametrize(
    "answer",
    [reply(b'{"result":{"data":1}}'), reply(b"{}", status=b"500 Internal Server Error"), reply(b""), reply(b"{} ")],
    ids=["another body", "another status", "no body", "a space"],
)
def test_every_other_answer_is_judged(backend, answer):
    backend.ask()
    backend.now_ns += 7
    backend.carrier.data_received(answer)
    assert len(backend.judged) == 1
    assert backend.replies == [JUDGED]
    assert backend.counted == ([0, 0, 1], 7)


def test_failure_is_judged_too(backend):
    backend.ask()
    (exchange,) = backend.book.owed
    backend.book.tell(exchange, "timed out")
    assert backend.judged == ["timed out"]
    assert backend.replies == [JUDGED]


def test_requests_in_flight_keep_their_own_sender_and_time(backend):
    other, _ = backend.yard.park()
    first: list[Reply] = []
    second: list[Reply] = []
    backend.forward(object(), make_request(), first.append)
    backend.now_ns += 10
    backend.forward(object(), make_request(), second.append)
    backend.now_ns += 10
    backend.carrier.data_received(reply(b"{}"))
    assert (first, second) == ([], [PLAIN[b"{}"]])
    other.data_received(reply(b"{}"))
    assert first == [PLAIN[b"{}"]]
    assert backend.counted == ([2, 0, 0], 30)
    assert not backend.book.in_flight


def test_judge_that_raises_is_reported_and_costs_no_connection(backend):
    def raises(outcome: object) -> tuple[int, Reply]:
        raise ZeroDivisionError

    backend.forward = Forward(
        Road(backend.book, backend.yard), Recorder(backend.file.block(0), 0, OUTCOMES), int, {}, raises
    )
    backend.ask()
    backend.carrier.data_received(reply(b"{}"))
    assert [type(bug) for bug in backend.book.bugs] == [ZeroDivisionError]
    assert backend.yard.idle == [backend.carrier]


def test_it_is_made_of_what_it_needs(backend):
    with pytest.raises(TypeError):
        Forward(None, None, int, {}, backend.judge)
    with pytest.raises(TypeError):
        backend.forward(object(), None, backend.replies.append)
