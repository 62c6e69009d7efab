"""Leases in shared memory do as `leases.Lease` does, and a record is nobody else's while it is needed."""

import os
import subprocess
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.buckets import CLIENT, BucketTable, Layer, Plan
from cpro._fast.leasetable import ASK, DUE, EMPTY, FORGET_NS, SPENT, SPENT_DUE, LeasePlan, LeaseTable, file_bytes
from cpro.errors import StoreError
from cpro.limits.leases import Answer, Balance, Lease, Limit, Policy, begin, build_ask, is_due, take_answer

NOW = 10**15 + 123_456_789
SECOND = 10**9
MS = 10**6
ME = os.getpid()
PLAN = LeasePlan([1])
BOTH = LeasePlan([1, 2])
LIMIT = Limit(1, 10 * MS, 100 * 10 * MS)
POLICY = Policy()
HOLDER = bytes(16)


@pytest.fixture
def table(tmp_path: Path):
    made = LeaseTable.create_or_open(str(tmp_path / "t"), 1000, bytes(16), NOW)
    made.clock = lambda: NOW
    yield made
    made.close()


def fill(table, tokens, *, place=0, user="u", deadline_ns=NOW + 9 * SECOND, plan=BOTH, **others):
    record = table.claim(plan, place, user, 0, ME, NOW)
    record.sequence += 1
    record.granted += tokens
    record.tokens += tokens
    record.deadline_ns = deadline_ns
    for name, value in others.items():
        setattr(record, name, value)
    record.release()
    return record.tag


def in_hand(table, place=0, user="u"):
    return table.peek_tag(table.tag_of(BOTH, place, user, 0)).tokens


def gone_pid() -> int:
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


# --- spending ---


def test_an_absent_record_is_asked_about_and_not_made(table):
    assert table.spend(PLAN, "u", 0, NOW) == ASK
    assert table.peek_tag(table.tag_of(PLAN, 0, "u", 0)) is None
    assert table.retry_ns(PLAN, "u", 0, NOW) == 0


def test_exactly_what_is_in_hand_is_spent_until_the_deadline(table):
    fill(table, 3)
    assert table.spend(PLAN, "u", 0, NOW, 4) == ASK
    assert table.spend(PLAN, "u", 0, NOW, 2) == SPENT
    assert table.spend(PLAN, "u", 0, NOW + 9 * SECOND) == ASK
    assert table.spend(PLAN, "u", 0, NOW + 9 * SECOND - 1) == SPENT
    assert table.spend(PLAN, "u", 0, NOW) == ASK
    assert in_hand(table) == 0


def test_users_kinds_and_buckets_have_records_of_their_own(table):
    fill(table, 1)
    assert [table.spend(*key, NOW) for key in [(PLAN, "v", 0), (PLAN, "u", 1), (LeasePlan([2]), "u", 0)]] == [ASK] * 3
    assert table.spend(PLAN, "u", 0, NOW) == SPENT


def test_several_records_are_spent_from_together_or_not_at_all(table):
    fill(table, 5)
    assert table.spend(BOTH, "u", 0, NOW) == ASK
    fill(table, 2, place=1)
    assert [table.spend(BOTH, "u", 0, NOW) for _ in range(3)] == [SPENT, SPENT, ASK]
    assert (in_hand(table, 0), in_hand(table, 1)) == (3, 0)


def test_a_denial_is_remembered_and_ends_no_earlier_than_it_was_set(table):
    fill(table, 5)
    until_ns = NOW + 250 * MS + 1
    fill(table, 0, place=1, next_ask_ns=until_ns)
    assert table.spend(BOTH, "u", 0, NOW) == table.spend(BOTH, "u", 0, until_ns - 1) == EMPTY
    assert 250 * MS < table.retry_ns(BOTH, "u", 0, NOW) <= 251 * MS + 1
    assert table.spend(BOTH, "u", 0, until_ns + MS) == ASK
    assert in_hand(table) == 5


def test_a_denial_does_not_keep_what_is_in_hand(table):
    fill(table, 1, next_ask_ns=NOW + SECOND)
    assert [table.spend(PLAN, "u", 0, NOW) for _ in range(2)] == [SPENT, EMPTY]


def test_a_low_record_is_due_unless_somebody_asks_already(table):
    fill(table, 50, demand_mtps=100_000, asked_ns=NOW - SECOND)
    assert [table.spend(PLAN, "u", 0, NOW, 9) for _ in range(6)] == [SPENT] * 4 + [SPENT_DUE, ASK]
    assert table.spend(PLAN, "u", 0, NOW) == SPENT_DUE
    with table.claim(PLAN, 0, "u", 0, ME, NOW):
        assert table.spend(PLAN, "u", 0, NOW) == SPENT


def test_times_in_ms_err_to_the_safe_side(table):
    record = table.claim(PLAN, 0, "u", 0, ME, NOW)
    for shift in (0, 1, MS - 1, MS, 2**32 * MS - 1, 2**32 * MS, 2**31 * MS):
        at_ns = NOW + shift
        record.deadline_ns, record.next_ask_ns, record.half_ns = at_ns, at_ns + 7, at_ns - 7
        assert record.deadline_ns == at_ns
        assert 0 <= record.next_ask_ns - (at_ns + 7) < 2 * MS + 1
        assert 0 <= record.half_ns - (at_ns - 7) < 2 * MS + 1
    record.next_ask_ns = at_ns + 10**18
    assert record.next_ask_ns > at_ns + 19 * 86400 * SECOND
    record.half_ns = record.next_ask_ns = record.asked_ns = 0
    assert record.half_ns == record.next_ask_ns == record.asked_ns == 0


def test_a_record_left_for_weeks_denies_nothing(table):
    fill(table, 3, next_ask_ns=NOW + SECOND, asked_ns=NOW)
    for days in (1, 24, 25, 49, 50, 99):
        assert table.spend(PLAN, "u", 0, NOW + days * 86400 * SECOND) == ASK
    later_ns = NOW + 30 * 86400 * SECOND
    with table.claim(PLAN, 0, "u", 0, ME, later_ns) as record:
        assert (record.tokens, record.asked_ns, record.next_ask_ns, record.deadline_ns) == (0, 0, 0, later_ns)
        assert record.spent == 3


# --- together with the node's own buckets ---


@pytest.fixture
def own(tmp_path: Path):
    made = BucketTable.create_or_open(str(tmp_path / "own"), 1000, bytes(16), NOW)
    yield made
    made.close()


CLIENTS_ONE = Plan([Layer(0, CLIENT, 7, SECOND, SECOND)])


def test_both_pay_or_neither(table, own):
    fill(table, 3)
    fill(table, 3, place=1)
    charge = partial(table.charge, BOTH, own, CLIENTS_ONE)
    assert charge("c1", "u", 0, NOW) == 0b01
    assert (in_hand(table, 0), in_hand(table, 1)) == (2, 2)
    for _ in range(2):
        assert charge("c1", "u", 0, NOW) == 0b10
        assert (in_hand(table, 0), in_hand(table, 1)) == (2, 2), "the connection's refusal leaves what is in hand there"
        table.give_back(BOTH, "u", 0, NOW)
    assert [charge(f"c{number}", "u", 0, NOW) for number in (2, 3, 4)] == [0b01, 0b01, -ASK]
    assert own.tokens_left(CLIENTS_ONE, "c4", "u", 0, NOW) == 1, "nor does the connection pay without a token in hand"


def test_what_runs_low_is_said_beside_the_answer_of_the_node(table, own):
    plan = LeasePlan([1], [LIMIT])
    fill(table, 10, granted=100, asked_ns=NOW, demand_mtps=1_000_000)
    assert table.charge(plan, own, CLIENTS_ONE, "c1", "u", 0, NOW + SECOND) == 0b01 | DUE
    assert table.charge(plan, own, CLIENTS_ONE, "c1", "u", 0, NOW + SECOND) == 0b10


# --- giving back ---


def test_a_spend_is_undone_once(table):
    fill(table, 5)
    fill(table, 5, place=1)
    table.spend(BOTH, "u", 0, NOW, 2)
    for _ in range(2):
        table.give_back(BOTH, "u", 0, NOW, 2)
        assert (in_hand(table, 0), in_hand(table, 1)) == (5, 5)


def test_nothing_is_given_back_without_a_spend(table):
    fill(table, 1)
    table.give_back(PLAN, "u", 0, NOW)
    table.spend(PLAN, "u", 0, NOW, 2)
    table.give_back(PLAN, "u", 0, NOW, 2)
    assert in_hand(table) == 1


@pytest.mark.parametrize("what", ["expired", "reported", "asking", "new life", "zeroed"])
def test_what_may_be_reported_or_over_stays_spent(table, what):
    fill(table, 5)
    table.spend(PLAN, "u", 0, NOW)
    record = None if what == "expired" else table.claim(PLAN, 0, "u", 0, ME, NOW)
    if what == "reported":
        record.sequence += 1
    elif what == "new life":
        begin(record, NOW + 5000)
    elif what == "zeroed":
        record.tokens = 0
    if record and what != "asking":
        record.release()
    before = in_hand(table)
    table.give_back(PLAN, "u", 0, NOW + 9 * SECOND if what == "expired" else NOW)
    assert in_hand(table) == before


def test_giving_back_more_than_half_takes_the_note_away(table):
    fill(table, 4, asked_ns=NOW)
    table.spend(PLAN, "u", 0, NOW, 2)
    tag = table.tag_of(PLAN, 0, "u", 0)
    assert table.peek_tag(tag).half_ns >= NOW
    table.give_back(PLAN, "u", 0, NOW, 2)
    table.spend(PLAN, "u", 0, NOW, 3)
    assert table.peek_tag(tag).half_ns == 0, "a note may be on its way in another worker: none counts in this round"


def test_half_is_noted_with_the_time_after_the_spend(table):
    fill(table, 4)
    table.clock = lambda: NOW + 5 * MS
    table.spend(PLAN, "u", 0, NOW, 2)
    assert NOW + 5 * MS <= table.peek_tag(table.tag_of(PLAN, 0, "u", 0)).half_ns <= NOW + 6 * MS


def test_a_stale_reading_notes_nothing(table):
    fill(table, 4)
    table.clock = lambda: NOW + 11 * SECOND
    assert table.spend(PLAN, "u", 0, NOW, 2) == SPENT
    assert table.peek_tag(table.tag_of(PLAN, 0, "u", 0)).half_ns == 0


# --- the flight ---


def test_a_flight_has_one_owner_until_it_is_released_or_gone(table):
    record = table.claim(PLAN, 0, "u", 0, ME, NOW)
    assert record.flight == ME
    assert table.claim(PLAN, 0, "u", 0, ME, NOW) is None
    assert table.claim_tag(record.tag, os.getppid(), NOW) is None
    record.release()
    record.release()
    dead = gone_pid()
    assert table.claim_tag(record.tag, dead, NOW).flight == dead
    with table.claim_tag(record.tag, ME, NOW) as mine:
        assert mine.flight == ME
    assert table.claim_tag(12345, ME, NOW) is None
    with pytest.raises(StoreError):
        _ = record.tokens


def test_flights_of_a_process_can_be_freed(table):
    for user in "ab":
        table.claim(PLAN, 0, user, 0, ME, NOW)
    other = table.claim(PLAN, 0, "c", 0, os.getppid(), NOW)
    assert table.free_flights(ME) == 2
    assert table.claim(PLAN, 0, "a", 0, ME, NOW)
    assert other.flight == os.getppid()


def test_tokens_are_changed_by_the_difference_while_others_spend(table):
    fill(table, 10)
    record = table.claim(PLAN, 0, "u", 0, ME, NOW)
    assert record.tokens == 10
    table.spend(PLAN, "u", 0, NOW, 3)
    record.tokens = 14
    assert record.tokens == 11


def test_what_was_spent_meanwhile_is_not_reported_as_returned(table):
    fill(table, 10)
    record = table.claim(PLAN, 0, "u", 0, ME, NOW)
    back = record.tokens
    table.spend(PLAN, "u", 0, NOW, 3)
    record.tokens -= back
    record.returned += back
    assert (record.tokens, record.returned, record.spent) == (0, 7, 3)


def test_what_was_spent_meanwhile_stays_granted(table):
    fill(table, 10)
    record = table.claim(PLAN, 0, "u", 0, ME, NOW)
    gain = -record.tokens
    table.spend(PLAN, "u", 0, NOW, 3)
    record.granted += gain
    record.tokens += gain
    assert (record.tokens, record.granted, record.spent) == (0, 3, 3)


def test_a_thousand_requests_may_be_unanswered(table):
    record = table.claim(PLAN, 0, "u", 0, ME, NOW)
    for _ in range(1023):
        record.sequence += 1
    assert record.acked == 0
    record.sequence += 1
    assert record.acked == 1
    record.acked = record.sequence
    assert record.acked == record.sequence == 1024


# --- whose record ---


def test_a_record_is_anothers_only_after_it_is_forgotten_and_asked_again(tmp_path):
    table = LeaseTable.create_or_open(str(tmp_path / "t"), 1, bytes(16), NOW)
    made = 0
    while record := table.claim(PLAN, 0, str(made), 0, ME, NOW):
        record.granted = record.tokens = 1
        record.deadline_ns = NOW + SECOND
        record.release()
        made += 1
    newcomer = str(made)
    assert made > 300
    assert table.evictions == 0
    assert table.live(NOW) == made
    late_ns = NOW + SECOND + FORGET_NS
    for now_ns in (NOW, NOW + SECOND - 1):
        assert table.claim(PLAN, 0, newcomer, 0, ME, now_ns) is False
    record = table.claim(PLAN, 0, newcomer, 0, ME, late_ns + 1)
    assert (record.tokens, record.granted, record.start, table.evictions) == (0, 0, (late_ns + 1) >> 8 & 0xFFFFFFFF, 0)
    table.close()


def test_a_record_without_tokens_is_evicted_first_and_counted(tmp_path):
    table = LeaseTable.create_or_open(str(tmp_path / "t"), 1, bytes(16), NOW)
    for user in range(3000):
        record = table.claim(PLAN, 0, str(user), 0, ME, NOW)
        if not record:
            break
        if user % 2:
            record.granted = record.tokens = 1
        record.deadline_ns = NOW + SECOND
        record.release()
    assert user > table.capacity // 2
    assert table.evictions > 0
    kept = sum(table.spend(PLAN, str(odd), 0, NOW) == SPENT for odd in range(1, user, 2))
    assert kept == user // 2
    table.close()


def test_a_key_that_comes_back_has_a_new_life_and_sequence(tmp_path):
    table = LeaseTable.create_or_open(str(tmp_path / "t"), 1, bytes(16), NOW)
    tag = fill(table, 3, plan=PLAN)
    start, sequence = (table.peek_tag(tag).start, table.peek_tag(tag).sequence)
    later_ns = NOW + 60 * SECOND
    for user in range(2000):
        table.claim(PLAN, 0, str(user), 0, ME, later_ns)
        if table.peek_tag(tag) is None:
            break
    table.free_flights(ME)
    record = table.claim(PLAN, 0, "u", 0, ME, later_ns + 60 * SECOND)
    assert record.start != start
    assert (record.tokens, record.granted, record.acked) == (0, 0, record.sequence)
    assert sequence == 1
    table.close()


def test_reopening_keeps_records_of_the_same_boot_and_frees_their_flights(tmp_path):
    path = str(tmp_path / "t")
    table = LeaseTable.create_or_open(path, 1000, bytes(16), NOW, "/home")
    fill(table, 7)
    table.claim(PLAN, 0, "u", 0, ME, NOW)
    holder = table.holder_id
    table.close()
    with pytest.raises(StoreError):
        table.spend(PLAN, "u", 0, NOW)
    again = LeaseTable.create_or_open(path, 1000, bytes(16), NOW, "/home")
    assert (again.holder_id, in_hand(again), again.home) == (holder, 7, "/home")
    assert again.claim(PLAN, 0, "u", 0, ME, NOW)
    again.close()
    other = LeaseTable.create_or_open(path, 1000, bytes(15) + b"1", NOW)
    assert other.holder_id != holder
    assert other.spend(PLAN, "u", 0, NOW) == ASK
    other.close()
    assert (tmp_path / "t").stat().st_size == file_bytes(1000)


# --- parity with the specification ---

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["spend", "spend", "spend", "ask", "ask", "give back", "lost", "stale", "unknown"]),
        st.integers(0, 4 * SECOND),
        st.integers(1, 40),
        st.integers(0, 60),
    ),
    max_size=40,
)
ROUNDED = {"half_ns": (0, 1), "next_ask_ns": (0, 1), "asked_ns": (-1, 0)}


def same(model: Lease, record) -> None:
    """Equal but for ms; then made equal, so that differences do not add up."""
    for field in fields(Lease):
        if field.name in ("gap_ns", "last_ns"):
            continue  # a record has no place for what follows from its bucket's limit
        if field.name in ("flight", "deadline_ns") and not getattr(model, field.name):
            continue
        wanted, is_ = getattr(model, field.name), getattr(record, field.name)
        low, high = ROUNDED.get(field.name, (0, 0))
        assert wanted + low * 2 * MS <= is_ <= wanted + high * 2 * MS, field.name
        if field.name != "flight":
            setattr(model, field.name, is_)
    assert (record.spent, record.half) == (model.spent, model.half)


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_a_record_does_as_the_specification(steps):
    table = TABLES[0]
    plan = LeasePlan([1], [LIMIT])
    clock = [NOW]
    table.clock = lambda: clock[0]
    NAMES.append(str(len(NAMES)))
    user = NAMES[-1]
    with table.claim(plan, 0, user, 0, ME, NOW) as record:
        model = Lease(start=record.start, sequence=record.sequence, acked=record.acked)
    tag = record.tag
    is_barred = False
    for what, later_ns, tokens, granted in steps:
        clock[0] += later_ns
        now_ns = clock[0]
        if what in ("spend", "give back"):
            wanted = model.spend(tokens, now_ns)
            due = is_due(model, LIMIT, now_ns, POLICY)
            got = table.spend(plan, user, 0, now_ns, tokens)
            refused = ASK if now_ns >= model.next_ask_ns else EMPTY
            assert got == ((SPENT_DUE if due else SPENT) if wanted else refused)
            if what == "give back" and wanted:
                table.give_back(plan, user, 0, now_ns, tokens)
                is_barred |= model.tokens <= model.half < model.tokens + tokens
                model.tokens += tokens
        else:
            is_barred = False
            with table.claim(plan, 0, user, 0, ME, now_ns) as record:
                asks = [build_ask(x, LIMIT, HOLDER, now_ns, POLICY, tokens % 3) for x in (model, record)]
                assert asks[0]._replace(age_ns=0) == asks[1]._replace(age_ns=0)
                assert -4 * MS <= asks[1].age_ns - asks[0].age_ns <= 0
                same(model, record)
                seen = {"stale": asks[0].sequence, "unknown": asks[0].sequence + 1}.get(what, 0)
                balance = Balance(model.granted + min(granted, asks[0].extra), 0, granted // 20, seen)
                answer = Answer(bool(seen), tokens % 2, 10 * MS, (balance,))
                if what != "lost":
                    taken = [take_answer(x, asks[0], answer, 0, now_ns, POLICY) for x in (model, record)]
                    assert taken[0] == taken[1]
                same(model, record)
        model.half_ns *= not is_barred  # no note until the next request
        same_unclaimed(model, table.peek_tag(tag))


SMALL = Limit(1, 3_333_334, 30 * 3_333_334)
STREAM_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["spend", "spend", "spend", "spend", "ask", "leave"]),
        st.one_of(st.integers(0, 10 * MS), st.integers(0, 120 * MS)),
        st.integers(1, 6),
    ),
    min_size=5,
    max_size=60,
)


@settings(deadline=None, max_examples=150)
@given(pace=st.integers(1, 16), room=st.integers(1, 30), at_once=st.integers(0, 30), steps=STREAM_STEPS)
def test_a_stream_does_as_the_specification(pace, room, at_once, steps):
    table, plan, now_ns = TABLES[0], LeasePlan([1], [SMALL]), NOW // MS * MS
    NAMES.append(str(len(NAMES)))
    user = NAMES[-1]
    with table.claim(plan, 0, user, 0, ME, now_ns) as record:
        model = Lease(start=record.start, sequence=record.sequence, acked=record.acked)
        asks = [build_ask(one, SMALL, HOLDER, now_ns, POLICY, 1) for one in (model, record)]
        balance = Balance(model.granted + min(room, at_once), room, 0, 0, pace)
        answer = Answer(False, 0, 0, (balance,))
        assert [take_answer(one, asks[0], answer, 0, now_ns + MS, POLICY) for one in (model, record)] == [True, True]
        assert (record.pace, record.room, record.half_ns) == (pace, room, 0)
    for what, later_ns, tokens in steps:
        now_ns += later_ns
        assert table.peek_tag(record.tag)[:2] == (model.tokens, model.deadline_ns)
        if what == "spend":
            wanted = model.spend(tokens, now_ns)
            refused = EMPTY if model.pace and model.tokens and now_ns < model.deadline_ns else ASK
            assert table.spend(plan, user, 0, now_ns, tokens) == (SPENT if wanted else refused)
            continue
        with table.claim(plan, 0, user, 0, ME, now_ns) as claimed:
            keywords = {"refused": 0, "leave": what == "leave"}
            asks = [build_ask(one, SMALL, HOLDER, now_ns, POLICY, tokens, **keywords) for one in (model, claimed)]
            assert asks[0] == asks[1]
            assert (claimed.pace, claimed.tokens, claimed.spent) == (model.pace, model.tokens, model.spent)
            if not model.pace:
                return


def test_a_token_of_a_stream_is_given_back(table):
    plan = LeasePlan([1, 2], [SMALL, LIMIT])
    with table.claim(plan, 0, "u", 0, ME, NOW) as record:
        record.asked_ns = NOW
        record.begin_stream(20, 16, 5, SMALL, NOW)
    fill(table, 3, place=1)
    later_ns = NOW + 60 * MS
    assert table.spend(plan, "u", 0, later_ns, 3) == SPENT
    table.give_back(plan, "u", 0, later_ns, 3)
    assert in_hand(table, 1) == 3
    assert [table.spend(plan, "u", 0, later_ns) for _ in range(4)] == [SPENT] * 3 + [ASK]
    assert table.spend(LeasePlan([1], [SMALL]), "u", 0, later_ns, 2) == SPENT
    assert table.spend(LeasePlan([1], [SMALL]), "u", 0, later_ns) == EMPTY


def same_unclaimed(model: Lease, peek) -> None:
    assert 0 <= peek.half_ns - model.half_ns <= 2 * MS
    model.half_ns = peek.half_ns
    assert (peek.tokens, peek.spent, peek.in_hand(NOW)) == (model.tokens, model.spent, model.in_hand(NOW))


NAMES: list[str] = []
TABLES: list[LeaseTable] = []


@pytest.fixture(autouse=True, scope="module")
def parity_table(tmp_path_factory):
    TABLES.append(LeaseTable.create_or_open(str(tmp_path_factory.mktemp("l") / "t"), 1000, bytes(16), NOW))
    yield
    TABLES.pop().close()
