"""The holder's arithmetic, and what it achieves in a simulated deployment: progress, calls, stranded tokens."""

import pytest
from benchmarks.leases.deployment import of_one_user

from cpro.limits.leases import (
    NOBODY,
    Lease,
    Limit,
    Policy,
    Request,
    birth,
    build_ask,
    demand_mtps,
    is_due,
    is_over,
    lease_id,
    target,
)
from cpro.limits.redis_store import pack_request

POLICY = Policy()
HOLDER = bytes(range(16))
LIMIT = Limit(1, 16_666_667, 60 * 16_666_667)
SECOND_NS = 10**9
NOW_NS = 10**13


def holding(tokens: int, *, demand_mtps: int = 20_000, asked_ns: int = NOW_NS) -> Lease:
    return Lease(
        start=1,
        tokens=tokens,
        granted=tokens,
        deadline_ns=asked_ns + 95 * 10**8,
        demand_mtps=demand_mtps,
        asked_ns=asked_ns,
    )


@pytest.mark.parametrize(
    ("step_ns", "full_ns", "cost", "accrual"),
    [
        (10**9, 60 * 10**9, 10**6, 1),
        (100, 10**9, 1, 10),
        (16_666_667, 60 * 16_666_667, 16_666_667, 1000),
        (500, 500, 16, 32),
    ],
)
def test_refill_is_exact_in_whole_units(step_ns, full_ns, cost, accrual):
    limit = Limit(1, step_ns, full_ns)
    assert (limit.cost, limit.accrual, limit.full) == (cost, accrual, full_ns // step_ns * cost)
    assert limit.cost * 1000 == limit.accrual * step_ns


@pytest.mark.parametrize(
    ("step_ns", "tokens"),
    [(31_536_000 * 10**9 + 1, 10), (1_234_567, 255_000_000_000), (101, 10**15), (100, 3 * 10**15), (999_999, 10**11)],
)
def test_a_bucket_that_takes_years_fits_and_never_refills_early(step_ns, tokens):
    limit = Limit(1, step_ns, step_ns * tokens)
    assert limit.full <= 2**52
    assert limit.cost * 1000 >= limit.accrual * step_ns
    assert limit.step_ns <= step_ns * 1.001
    assert limit.tokens <= tokens


@pytest.mark.parametrize(("step_ns", "full_ns"), [(0, 1), (2, 1), (2**53, 2**61)])
def test_an_impossible_bucket_is_refused(step_ns, full_ns):
    with pytest.raises(ValueError, match="at least a token"):
        Limit(1, step_ns, full_ns)


def test_every_record_of_every_holder_has_a_lease_id_of_its_own():
    ids = {lease_id(holder * 8, start) for holder in (b"ab", b"cd") for start in range(1000)}
    assert len(ids) == 2000
    assert NOBODY not in ids
    assert birth(NOW_NS) != birth(NOW_NS + 256)


def test_one_operation_leases_nothing():
    lease = Lease(start=1)
    assert build_ask(lease, LIMIT, HOLDER, NOW_NS, POLICY, 1).extra == 0


def test_demand_follows_what_is_spent_and_fades():
    lease = holding(60, demand_mtps=0)
    lease.tokens = 0
    assert demand_mtps(lease, NOW_NS + 3 * SECOND_NS, POLICY) == 10_000
    assert demand_mtps(lease, NOW_NS + 30 * SECOND_NS, POLICY) < 2000


def test_a_lease_covers_a_period_but_never_all_of_a_bucket():
    assert target(holding(0, demand_mtps=5000), LIMIT, NOW_NS, POLICY) == 15
    assert target(holding(0, demand_mtps=50_000), LIMIT, NOW_NS, POLICY) == 40
    assert target(holding(0, demand_mtps=50_000), Limit(1, 10**9, 10**9), NOW_NS, POLICY) == 0


def test_a_refill_is_asked_for_before_the_last_token_is_spent():
    assert is_due(holding(1), LIMIT, NOW_NS + SECOND_NS, POLICY)
    assert not is_due(holding(2), LIMIT, NOW_NS + SECOND_NS, POLICY)


def test_a_bucket_known_to_be_empty_is_left_alone():
    lease = holding(1)
    lease.next_ask_ns = NOW_NS + SECOND_NS
    assert not is_due(lease, LIMIT, NOW_NS + SECOND_NS - 1, POLICY)
    assert is_due(lease, LIMIT, NOW_NS + SECOND_NS, POLICY)


def test_what_nobody_spends_goes_back():
    lease = holding(20)
    assert not is_over(lease, NOW_NS + 3 * SECOND_NS - 1, POLICY)
    assert is_over(lease, NOW_NS + 3 * SECOND_NS, POLICY)
    ask = build_ask(lease, LIMIT, HOLDER, NOW_NS + 3 * SECOND_NS, POLICY)
    assert (ask.returned, ask.held, ask.extra, lease.tokens) == (20, 0, 0, 0)


def test_what_is_spent_slowly_is_reported_and_renewed():
    lease = holding(20)
    lease.spend(12, NOW_NS)
    assert is_over(lease, NOW_NS + 3 * SECOND_NS, POLICY)
    ask = build_ask(lease, LIMIT, HOLDER, NOW_NS + 3 * SECOND_NS, POLICY)
    assert (ask.spent, ask.returned, ask.held) == (12, 0, 8)


def test_what_is_lost_at_the_deadline_is_reported_as_spent():
    lease = holding(20)
    ask = build_ask(lease, LIMIT, HOLDER, lease.deadline_ns, POLICY)
    assert (ask.spent, ask.held, ask.returned) == (20, 0, 0)


def test_what_is_in_hand_goes_back_for_operations_that_wait_for_another_bucket():
    lease = holding(20)
    ask = build_ask(lease, LIMIT, HOLDER, NOW_NS, POLICY, 3)
    assert (ask.returned, ask.held) == (3, 17)


def test_a_half_that_was_noted_a_moment_after_the_report_began_has_no_age():
    lease = holding(20)
    lease.half_ns = NOW_NS + 10**6  # another worker's clock reading, rounded up to a millisecond
    ask = build_ask(lease, LIMIT, HOLDER, NOW_NS, POLICY)
    assert ask.age_ns == 0
    pack_request(Request("42", (ask,)), 1, POLICY)


def test_totals_that_grow_too_large_begin_anew():
    lease = holding(0)
    lease.granted = 2**31
    ask = build_ask(lease, LIMIT, HOLDER, NOW_NS, POLICY, 1)
    assert (ask.spent, ask.start != 1, ask.sequence) == (0, True, 1)


@pytest.mark.parametrize(
    ("rate", "burst", "nodes", "per_s"),
    [(60, 60, 1, 61), (60, 60, 1, 500), (60, 60, 4, 61), (60, 60, 4, 500), (10, 10, 10, 50), (20, 100, 4, 30),
     (500, 1000, 3, 1000), (200, 200, 2, 3000)],
)  # fmt: skip
def test_demand_above_the_limit_gets_95_percent_of_it_and_every_node_a_part(rate, burst, nodes, per_s):
    result = of_one_user(rate, burst, nodes, per_s, 10 if per_s > 1000 else 20).result
    assert result.share_of_ideal >= 0.95
    assert result.overshoot_tokens <= 0
    assert min(result.admitted_by_node.values()) >= 0.25 * result.admitted / nodes


@pytest.mark.parametrize(
    ("rate", "burst", "nodes", "per_s"), [(100, 10, 1, 500), (100, 50, 4, 500), (100, 1, 1, 500), (10, 2, 3, 50)]
)
def test_small_bursts_get_85_percent(rate, burst, nodes, per_s):
    result = of_one_user(rate, burst, nodes, per_s, 10).result
    assert result.share_of_ideal >= 0.85
    assert result.overshoot_tokens <= 0


@pytest.mark.parametrize("nodes", [1, 4])
def test_demand_below_the_limit_is_admitted(nodes):
    assert of_one_user(60, 60, nodes, 40).result.share_of_ideal >= 0.99


@pytest.mark.parametrize(("rate", "nodes"), [(60, 1), (60, 4), (1000, 2), (1, 2)])
def test_an_abusive_user_costs_less_than_five_calls_a_second_and_node(rate, nodes):
    result = of_one_user(rate, rate, nodes, 3000, 15).result
    assert max(result.calls_by_node.values()) <= 5 * 15
    assert result.share_of_ideal >= 0.95


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize(
    ("rate", "burst", "per_s"),
    [(20, 2, 100), (5, 1, 30), (1, 1, 30), (20, 4, 30), (100, 10, 500), (100, 10, 120), (100, 25, 500), (100, 50, 500)],
)
def test_a_small_bucket_that_is_not_hammered_is_asked_when_half_of_it_is_there(rate, burst, per_s, nodes):
    seconds = 15
    result = of_one_user(rate, burst, nodes, per_s, seconds).result
    most_per_s = max(4, rate / max(1, burst // 2))
    assert max(result.calls_by_node.values()) <= 1.2 * most_per_s * seconds
    assert result.share_of_ideal >= (0.85 if burst < rate else 0.95)
    assert result.overshoot_tokens <= 0


def test_idle_users_leave_nothing_stranded():
    simulation = of_one_user(60, 60, 2, 40, 3, idle=8)
    (bucket,) = simulation.store.users["user"].values()
    assert bucket.out() == 0
