"""What the table answers: the arithmetic of buckets, blocks and dry runs, against a dictionary."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.buckets import CLIENT, NEVER_NS, REFUSED, USER, BucketTable, Layer, Plan
from cpro.errors import StoreError
from tests.oracle.buckets import OracleTable

BOOT = bytes(range(16))
START_NS = 5_000_000_000_000
SECOND = 1_000_000_000
ADMITTED, REFUSED_BY_CLIENT, REFUSED_BY_USER = 0b01, 0b10, 0b10_00


@pytest.fixture
def table(tmp_path: Path):
    made = BucketTable.create_or_open(str(tmp_path / "t"), 1000, BOOT, START_NS)
    yield made
    made.close()


def by_user(burst: int, step_ns: int = SECOND, identity: int = 7, block: int = 1, **previous: int) -> Layer:
    return Layer(block, USER, identity, step_ns, burst * step_ns, **previous)


def charge(table: BucketTable, plan: Plan, now_ns: int = START_NS, tokens: int = 1, user: str = "42") -> int:
    return table.charge(plan, "client", user, 1, now_ns, tokens)


@pytest.mark.parametrize("burst", [1, 2, 7, 100])
def test_as_many_as_the_burst_are_admitted_and_one_per_step_afterwards(table: BucketTable, burst: int):
    plan = Plan([by_user(burst)])
    assert [charge(table, plan) for _ in range(burst + 1)] == [0b01_00] * burst + [REFUSED_BY_USER]
    assert charge(table, plan, START_NS + SECOND - 1) == REFUSED_BY_USER
    assert charge(table, plan, START_NS + SECOND) == 0b01_00
    assert charge(table, plan, START_NS + SECOND) == REFUSED_BY_USER


@pytest.mark.parametrize(("tokens", "code"), [(4, 0b01_00), (5, 0b01_00), (6, REFUSED_BY_USER)])
def test_several_tokens_are_taken_up_to_what_the_bucket_holds(table: BucketTable, tokens: int, code: int):
    plan = Plan([by_user(5)])
    assert charge(table, plan, tokens=tokens) == code
    assert table.tokens_left(plan, "client", "42", 1, START_NS) == (5 if code == REFUSED_BY_USER else 5 - tokens)


def test_refused_spends_nothing_of_any_block(table: BucketTable):
    client, user, narrow = (
        Layer(0, CLIENT, 1, SECOND, 9 * SECOND),
        by_user(9, identity=2),
        by_user(1, identity=3, block=2),
    )
    wide, all_three = Plan([client, user]), Plan([client, user, narrow])
    assert charge(table, all_three) == 0b01_01_01
    assert charge(table, all_three) == 0b10_01_01
    assert charge(table, Plan([narrow])) == 0b10_00_00
    assert table.tokens_left(wide, "client", "42", 1, START_NS) == 8
    assert table.live(START_NS) == 3


def test_asking_stops_at_the_first_refusal(table: BucketTable):
    plan = Plan([Layer(0, CLIENT, 1, SECOND, SECOND), by_user(9, block=1)])
    assert charge(table, plan) == 0b01_01
    assert charge(table, plan) == REFUSED_BY_CLIENT
    assert REFUSED[REFUSED_BY_CLIENT]
    assert not REFUSED[0b01_01]


def test_dry_run_refuses_nothing_and_is_not_charged_when_it_would(table: BucketTable):
    plan = Plan([by_user(1, identity=1, block=1), by_user(3, identity=2, block=2)], (False, True, False))
    assert [charge(table, plan) for _ in range(4)] == [0b01_01_00, 0b01_11_00, 0b01_11_00, 0b10_11_00]
    assert table.tokens_left(Plan([by_user(1, identity=1)]), "", "42", 1, START_NS) == 0
    assert charge(table, Plan([by_user(1, identity=1)]), START_NS + SECOND) == 0b01_00


def test_users_without_an_id_are_not_limited_per_user(table: BucketTable):
    plan = Plan([Layer(0, CLIENT, 1, SECOND, 2 * SECOND), by_user(1)])
    assert [charge(table, plan, user="") for _ in range(3)] == [0b01, 0b01, 0b10]
    assert table.tokens_left(Plan([by_user(1)]), "client", "", 1, START_NS) == -1


def test_a_user_an_address_and_a_client_of_the_same_name_have_their_own_buckets(table: BucketTable):
    plan = Plan([by_user(1)])
    assert [table.charge(plan, "x", "x", kind, START_NS) for kind in (1, 2, 3)] == [0b01_00] * 3
    assert charge(table, Plan([Layer(1, CLIENT, 7, SECOND, SECOND)]), user="") == 0b01_00


def test_look_tells_how_long_until_it_is_admitted(table: BucketTable):
    plan = Plan([by_user(2), by_user(1, step_ns=3 * SECOND, identity=8)])
    assert table.look(plan, "", "42", 1, START_NS) == (0b01_00, 0)
    charge(table, plan)
    code, wait_ns = table.look(plan, "", "42", 1, START_NS + 1)
    assert (code, wait_ns) == (REFUSED_BY_USER, 3 * SECOND - 1)
    assert charge(table, plan, START_NS + wait_ns) == REFUSED_BY_USER
    assert charge(table, plan, START_NS + 1 + wait_ns) == 0b01_00
    assert table.look(plan, "", "42", 1, START_NS, 3) == (REFUSED_BY_USER, NEVER_NS)


def test_a_tat_implausibly_far_ahead_counts_as_exactly_empty(table: BucketTable):
    charge(table, Plan([by_user(1000)]), tokens=1000)
    smaller = Plan([by_user(2)])
    assert charge(table, smaller) == REFUSED_BY_USER
    assert charge(table, smaller, START_NS + SECOND) == 0b01_00
    assert charge(table, smaller, START_NS + SECOND) == REFUSED_BY_USER


def test_a_clock_reading_that_is_a_little_old_refunds_nothing(table: BucketTable):
    plan = Plan([by_user(3)])
    charge(table, plan, tokens=3)
    assert charge(table, plan, START_NS - SECOND) == REFUSED_BY_USER
    assert charge(table, plan, START_NS + SECOND - 1) == REFUSED_BY_USER


@pytest.mark.parametrize(("burst", "left"), [(20, 10), (5, 2), (3, 1)])
def test_a_changed_burst_keeps_the_share_that_is_used(table: BucketTable, burst: int, left: int):
    charge(table, Plan([by_user(10)]), tokens=5)
    renewed = Plan([by_user(burst, identity=9, previous_identity=7, previous_full_ns=10 * SECOND)])
    assert table.tokens_left(renewed, "", "42", 1, START_NS) == left
    assert charge(table, renewed, tokens=left + 1) == REFUSED_BY_USER
    assert charge(table, renewed, tokens=left) == 0b01_00
    assert table.tokens_left(renewed, "", "42", 1, START_NS) == 0


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([by_user(1, step_ns=0)], "1 ns to 36 years"),
        ([by_user(2**40, step_ns=2**40)], "1 ns to 36 years"),
        ([Layer(1, USER, 7, 2, 1)], "at least a step"),
        ([Layer(3, USER, 7, 1, 1)], "unknown block"),
        ([by_user(1), by_user(2)], "twice"),
        ([by_user(1, previous_identity=4)], "needs its size"),
        ([by_user(1, identity=number) for number in range(65)], "at most 64"),
    ],
)
def test_a_plan_that_can_not_be_is_refused(layers: list[Layer], why: str):
    with pytest.raises(ValueError, match=why):
        Plan(layers)


@pytest.mark.parametrize(("now_ns", "tokens"), [(-1, 1), (2**62, 1), (START_NS, 0), (START_NS, -1)])
def test_times_and_counts_that_can_not_be_are_errors(table: BucketTable, now_ns: int, tokens: int):
    with pytest.raises(ValueError, match="tokens must"):
        charge(table, Plan([by_user(1)]), now_ns, tokens)


def test_the_largest_numbers_do_not_overflow(table: BucketTable):
    largest = Plan([Layer(1, USER, 7, 2**60, 2**60)])
    assert charge(table, largest, 2**60, 2**62) == REFUSED_BY_USER
    assert charge(table, largest, 2**60) == 0b01_00
    assert charge(table, largest, 2**60) == REFUSED_BY_USER
    assert charge(table, Plan([Layer(1, USER, 7, 1, 1)]), 0, 2**63 - 1) == REFUSED_BY_USER


def test_a_lone_surrogate_is_an_error_not_another_user(table: BucketTable):
    with pytest.raises(UnicodeEncodeError):
        charge(table, Plan([by_user(1)]), user="\ud800")


def test_a_closed_table_says_so(table: BucketTable):
    table.close()
    table.close()
    with pytest.raises(StoreError, match="closed"):
        charge(table, Plan([by_user(1)]))
    with pytest.raises(StoreError, match="closed"):
        table.live(START_NS)


# -- parity ------------------------------------------------------------------------------------------------------------

layers = st.builds(
    lambda block, identity, step_ns, burst: Layer(block, int(block > 0), identity, step_ns, burst * step_ns),
    block=st.integers(0, 2),
    identity=st.integers(1, 4),
    step_ns=st.sampled_from([1, 3, 10**6, SECOND]),
    burst=st.integers(1, 5),
)
plans = st.lists(layers, max_size=5, unique_by=lambda layer: (layer.keyed_by, layer.identity))
dry_runs = st.tuples(st.booleans(), st.booleans(), st.booleans())
calls = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["", "a", "b"]),
        st.sampled_from(["", "a", "канал"]),
        st.integers(1, 2),
        st.sampled_from([0, 0, 0, 1, 2, -1, -5, 10**6, 10**6 - 1, SECOND, -SECOND, 5 * SECOND, 3600 * SECOND]),
        st.sampled_from([1, 1, 1, 2, 3, 6, 2**61]),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(plans, dry_runs), min_size=4, max_size=4), calls)
def test_answers_are_those_of_a_dictionary(tmp_path_factory: pytest.TempPathFactory, rules: list, steps: list):
    table = BucketTable.create_or_open(str(tmp_path_factory.mktemp("t") / "t"), 1000, BOOT, START_NS)
    oracle = OracleTable()
    compiled = [Plan(layers, dry_run) for layers, dry_run in rules]
    now_ns = START_NS
    for rule, client, user, kind, pause_ns, tokens in steps:
        now_ns += pause_ns
        layers, dry_run = rules[rule]
        ordered = sorted(layers, key=lambda layer: layer.block)
        question = (client, user, kind, now_ns)
        assert table.tokens_left(compiled[rule], *question) == oracle.tokens_left(ordered, *question)
        wait_ns = oracle.wait_ns(ordered, dry_run, *question, tokens)
        looked, own_wait_ns = table.look(compiled[rule], *question, tokens)
        assert own_wait_ns == wait_ns
        code = oracle.charge(ordered, dry_run, *question, tokens)
        assert looked == code
        assert table.charge(compiled[rule], *question, tokens) == code
        assert REFUSED[code] == (wait_ns > 0)
    table.close()


@given(
    full=st.integers(1, 10**10),
    previous_full=st.integers(1, 10**10),
    used=st.integers(1, 10**10),
    pause=st.integers(0, 10**9),
)
@settings(max_examples=100, deadline=None)
def test_the_share_used_is_never_rounded_down(tmp_path_factory, full: int, previous_full: int, used: int, pause: int):
    table = BucketTable.create_or_open(str(tmp_path_factory.mktemp("t") / "t"), 1, BOOT, START_NS)
    before = Layer(1, USER, 1, 1, previous_full)
    after = Layer(1, USER, 2, 1, full, 1, previous_full)
    oracle = OracleTable()
    used = min(used, previous_full)
    dry_run = (False, False, False)
    assert charge(table, Plan([before]), tokens=used) == oracle.charge([before], dry_run, "", "42", 1, START_NS, used)
    left = table.tokens_left(Plan([after]), "", "42", 1, START_NS + pause)
    assert left == oracle.tokens_left([after], "", "42", 1, START_NS + pause)
    assert (full - left) * previous_full >= max(used - pause, 0) * full
    table.close()
