"""Connections to the backend and their depot, without a loop: what is told, when, and what is idle afterwards."""

import random
from types import SimpleNamespace

import pytest

from tests.unit.carrier_peers import TIMEOUT_S, Book, Road, Yard
from tests.unit.http_client_peers import body_of, make_request, reply


@pytest.fixture
def one():
    """A route with one idle connection, on which nothing was sent yet."""
    book = Book()
    yard = Yard(book)
    carrier, wire = yard.park()
    road = Road(book, yard)
    told: list[object] = []
    return SimpleNamespace(book=book, yard=yard, carrier=carrier, wire=wire, road=road, told=told)


def ask(one) -> None:
    one.road.send(make_request(), one.told.append)


def test_reply_is_told_and_the_connection_idle_again(one):
    ask(one)
    assert one.yard.idle == []
    assert one.wire.written[0].startswith(b"POST /centrifugo/publish HTTP/1.1\r\nHost: app:3000\r\n")
    assert not one.told
    one.carrier.data_received(reply(b'{"a":1}'))
    assert [body_of(outcome) for outcome in one.told] == [b'{"a":1}']
    assert one.yard.idle == [one.carrier]
    assert one.book.in_flight == 0
    assert not one.carrier.is_fresh
    assert not one.yard.freed


def test_the_youngest_idle_connection_is_used_first(one):
    younger, wire = one.yard.park()
    ask(one)
    assert wire.written
    assert one.yard.idle == [one.carrier]
    younger.data_received(reply())
    assert one.yard.idle == [one.carrier, younger]


def test_a_request_that_finds_no_connection_is_the_pools(one):
    ask(one)
    ask(one)
    assert len(one.wire.written) == 1
    (waiting,) = one.yard.waits
    assert list(one.book.owed)[1] is waiting


@pytest.mark.parametrize("why", ["past its time", "closing"])
def test_idle_connection_that_must_not_be_used_is_dropped(one, why):
    if why == "closing":
        one.wire.closing = True
    else:
        one.carrier.reuse_until_s = one.book.now_s
    ask(one)
    assert one.wire.closing
    assert not one.wire.written
    assert not one.yard.idle
    assert len(one.yard.waits) == 1


@pytest.mark.parametrize("how", ["end of stream", "words", "lost"])
def test_idle_connection_that_ends_or_speaks_is_dropped_and_nobody_is_told(one, how):
    ask(one)
    one.carrier.data_received(reply())
    if how == "end of stream":
        one.carrier.eof_received()
    elif how == "words":
        one.carrier.data_received(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    if how != "lost":
        assert one.wire.closing
    one.carrier.connection_lost(None)
    assert one.yard.lost == [one.carrier]
    assert len(one.told) == 1
    assert not one.yard.failed


@pytest.mark.parametrize("is_reused", [False, True])
@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"], ids=["no byte", "a part"])
@pytest.mark.parametrize("ending", ["eof_received", "connection_lost"])
def test_connection_that_dies_in_flight_fails_its_exchange_once(one, is_reused, part, ending):
    if is_reused:
        ask(one)
        one.carrier.data_received(reply())
    ask(one)
    (exchange,) = one.book.owed
    one.carrier.data_received(part)
    if ending == "eof_received":
        one.carrier.eof_received()
    one.carrier.connection_lost(None)
    was_stale = is_reused and not part
    assert one.yard.failed == [(exchange, "RESET", was_stale)]
    assert exchange.holder is None
    assert one.yard.lost == [one.carrier]
    assert one.wire.closing
    assert not one.yard.idle


def test_late_reply_after_a_timeout_reaches_nobody(one):
    ask(one)
    (exchange,) = one.book.owed
    exchange.holder.withdraw(exchange)
    one.book.tell(exchange, "timed out")
    one.carrier.data_received(reply(b"late"))
    assert one.told == ["timed out"]
    assert one.wire.closing
    assert not one.yard.idle
    assert not one.yard.failed


def test_reply_before_the_request_is_wholly_sent_is_told_and_the_connection_closed(one):
    one.wire.unsent = 1
    ask(one)
    one.carrier.data_received(reply(b"", status=b"413 Content Too Large"))
    assert [outcome.status for outcome in one.told] == [413]
    assert one.wire.closing
    assert not one.yard.idle
    assert not one.yard.freed


def test_bytes_behind_a_reply_close_the_connection_and_the_reply_counts(one):
    ask(one)
    one.carrier.data_received(reply(b"{}") + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert [body_of(outcome) for outcome in one.told] == [b"{}"]
    assert one.wire.closing
    assert not one.yard.idle


def test_garbage_is_broken(one):
    ask(one)
    (exchange,) = one.book.owed
    one.carrier.data_received(b"\0\0\0\0")
    assert one.yard.failed == [(exchange, "BROKEN", False)]
    assert one.wire.closing
    one.carrier.data_received(reply())
    assert not one.told


@pytest.mark.parametrize("why", ["somebody waits", "closing", "to be swept earlier"])
def test_free_connection_that_must_not_be_idle_as_things_are_is_the_pools(one, why):
    ask(one)
    if why == "somebody waits":
        one.yard.waiting[object()] = None
    elif why == "closing":
        one.yard.closing = True
    else:
        one.yard.sweep_at_s = one.book.now_s + 61.0
    one.carrier.data_received(reply())
    assert one.yard.freed == [one.carrier]
    assert not one.yard.idle
    assert len(one.told) == 1


def test_an_answer_is_news_only_of_an_origin_that_had_failed(one):
    ask(one)
    one.carrier.data_received(reply())
    assert one.yard.health.answers == 0
    one.yard.health.failures = 2
    ask(one)
    one.carrier.data_received(reply(b"", status=b"500 Internal Server Error"))
    assert one.yard.health.answers == 1


def test_sender_that_raises_is_reported_and_costs_no_connection(one):
    def raises(outcome: object) -> None:
        raise ZeroDivisionError

    one.road.send(make_request(), raises)
    one.carrier.data_received(reply())
    assert [type(bug) for bug in one.book.bugs] == [ZeroDivisionError]
    assert one.yard.idle == [one.carrier]


def test_sender_may_send_again_at_once_on_the_same_connection(one):
    def again(outcome: object) -> None:
        one.road.send(make_request(b"[2]"), one.told.append)

    one.road.send(make_request(b"[1]"), again)
    one.carrier.data_received(reply(b"1"))
    one.carrier.data_received(reply(b"2"))
    assert [written[-3:] for written in one.wire.written] == [b"[1]", b"[2]"]
    assert [body_of(outcome) for outcome in one.told] == [b"2"]


def test_an_outcome_is_told_once(one):
    ask(one)
    (exchange,) = one.book.owed
    one.carrier.data_received(reply(b"first"))
    one.book.tell(exchange, "second")
    assert [body_of(outcome) for outcome in one.told] == [b"first"]


def test_only_the_oldest_exchange_is_watched(one):
    one.yard.park()
    ask(one)
    one.book.now_s += 0.1
    ask(one)
    assert one.book.watches == [100.0 + TIMEOUT_S]
    assert [exchange.deadline_s for exchange in one.book.owed] == [100.0 + TIMEOUT_S, 100.1 + TIMEOUT_S]
    one.book.watched = False
    ask(one)
    assert len(one.book.watches) == 2


def test_nothing_is_sent_while_closing_and_the_last_outcome_is_news(one):
    ask(one)
    one.book.closing = True
    ask(one)
    assert one.book.refused == [one.told.append]
    assert one.book.in_flight == 1
    one.carrier.data_received(reply())
    assert one.book.lasts == 1


def test_nothing_is_sent_without_a_request_or_by_a_stranger(one):
    with pytest.raises(TypeError):
        one.road.send(None, one.told.append)
    one.road.turn = iter([(object(), object())])
    with pytest.raises(TypeError):
        ask(one)
    assert one.book.in_flight == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_exchange_is_told_once_and_a_connection_carries_one(seed):
    """Random events; what the pool does in Python is as little as keeps it going."""
    dice = random.Random(seed)
    book = Book()
    yard = Yard(book)
    road = Road(book, yard)
    lines = [yard.park() for _ in range(4)]
    told: dict[int, list[object]] = {}
    for number in range(400):
        carrier, wire = dice.choice(lines)
        event = dice.choice(["send"] * 4 + ["reply"] * 3 + ["part", "excess", "garbage", "eof", "lost", "time out"])
        if event == "send":
            told[number] = []
            road.send(make_request(b"%05d" % number), told[number].append)
        elif event == "time out" and book.owed:
            exchange = next(iter(book.owed))
            if exchange.holder is not None:
                exchange.holder.withdraw(exchange)
            book.tell(exchange, "timed out")
        elif wire.closing:
            carrier.connection_lost(None)
            lines.remove((carrier, wire))
            if carrier in yard.idle:
                yard.idle.remove(carrier)
            lines.append(yard.park())
        elif event == "reply":
            carrier.data_received(reply(wire.written[-1][-5:] if wire.written else b""))
        elif event == "part":
            carrier.data_received(b"HTTP/1.1 200 OK\r\n")
        elif event == "excess":
            carrier.data_received(reply(wire.written[-1][-5:] if wire.written else b"") + b"H")
        elif event == "garbage":
            carrier.data_received(b"\0")
        elif event == "eof":
            carrier.eof_received()
        elif event == "lost":
            wire.closing = True
        for exchange in yard.waits:
            book.tell(exchange, "no connection")
        for exchange, failure, _ in yard.failed:
            assert exchange.holder is None
            book.tell(exchange, failure)
        yard.waits.clear()
        yard.failed.clear()
        carried = [exchange.holder for exchange in book.owed]
        assert len(set(carried)) == len(carried)
        assert not set(carried) & set(yard.idle)
        assert len(set(yard.idle)) == len(yard.idle)
    for exchange in list(book.owed):
        exchange.holder.withdraw(exchange)
        book.tell(exchange, "closed")
    assert not book.bugs
    assert {len(outcomes) for outcomes in told.values()} == {1}
    for number, (outcome,) in told.items():
        if not isinstance(outcome, str):
            assert body_of(outcome) == b"%05d" % number
    assert sum(not isinstance(outcome, str) for (outcome,) in told.values()) > 20
