"""Quotas on one node, in time that the tests bring: the arithmetic of answers, and what is one quota."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cpro._fast.buckets import USER, BucketTable, Layer, Plan
from cpro.limits.leases import Limit
from cpro.limits.quota import LONGEST_MS, MOST, MOST_PER_MS, LocalQuotas, Quota, Standing, sizes_of

START_NS = 5_000_000_000_000
MS = 10**6
MINUTE_MS = 60_000


class Asker:
    """Asks in the test's time."""

    def __init__(self, table: BucketTable):
        self.table, self.now_ns = table, START_NS
        self.quotas = LocalQuotas(table)

    def __call__(
        self, rate: int = 10, score: int = 1, key: str = "k", interval_ms: int = MINUTE_MS, **more
    ) -> Standing:
        found = self.quotas.ask(Quota(key, interval_ms, rate, score, **more), self.now_ns, never)
        assert found is not None
        return found


def never(standing: Standing | None) -> None:
    raise AssertionError("a node's own quotas answer at once")


@pytest.fixture
def ask(tmp_path):
    table = BucketTable.create_or_open(str(tmp_path / "t"), 1000, bytes(16), START_NS)
    yield Asker(table)
    table.close()


def test_a_quota_admits_its_rate_and_then_says_when_it_admits_again(ask):
    assert [ask() for _ in range(10)] == [Standing(True, left) for left in range(9, -1, -1)]
    assert ask() == Standing(False, 0, 6000 * MS)
    ask.now_ns += 6000 * MS - 1
    assert ask() == Standing(False, 0, 1)
    ask.now_ns += 1
    assert ask() == Standing(True, 0)


def test_a_score_is_taken_whole_or_not_at_all(ask):
    assert ask(score=7) == Standing(True, 3)
    assert ask(score=4) == Standing(False, 3, 6000 * MS)
    assert ask(score=3) == Standing(True, 0)


def test_a_score_above_the_rate_is_never_allowed_and_spends_nothing(ask):
    assert ask(score=11) == Standing(False, 10, -1)
    assert ask(score=11, dry_run=True) == Standing(False, 10, -1)
    assert ask(score=10) == Standing(True, 0)


def test_a_score_of_zero_tells_what_is_left_and_is_always_allowed(ask):
    assert ask(score=0) == Standing(True, 10)
    ask(score=10)
    assert ask(score=0) == Standing(True, 0)


def test_a_dry_run_answers_alike_and_spends_nothing(ask):
    for score in (3, 6, 2):
        dry = [ask(score=score, dry_run=True) for _ in range(3)]
        assert dry == [ask(score=score)] * 3


def test_another_interval_or_key_is_another_quota(ask):
    ask(score=10)
    assert not ask().allowed
    assert ask(interval_ms=MINUTE_MS + 1) == ask(key="other") == Standing(True, 9)


def test_another_rate_keeps_the_share_that_is_used(ask):
    ask(score=5)
    assert ask(rate=100, score=0).tokens_left == 50
    assert ask(rate=100, score=25).tokens_left == 25
    assert ask(rate=4, score=0).tokens_left == 1


def test_a_key_is_no_users_id(ask):
    sizes = sizes_of(MINUTE_MS, 10)
    plan = Plan([Layer(2, USER, sizes.identity, sizes.step_ns, sizes.full_ns)])
    ask(score=10)
    assert {ask.table.tokens_left(plan, "k", "k", kind, START_NS) for kind in (1, 2, 3)} == {10}


@given(st.integers(1, LONGEST_MS), st.integers(1, MOST))
@example(291_895_039, 1_540_372)  # a token takes less than a pause, and there are too many of them for parts
def test_the_store_and_the_node_count_alike_and_to_a_thousandth(interval_ms, rate):
    rate = min(rate, MOST_PER_MS * interval_ms)
    sizes = sizes_of(interval_ms, rate)
    limit = Limit(*sizes)
    assert limit.tokens == rate == sizes.full_ns // sizes.step_ns
    assert interval_ms * MS <= sizes.full_ns <= interval_ms * MS * 1.001
    assert sizes.full_ns <= limit.step_ns * limit.tokens <= interval_ms * MS * 1.002
    assert sizes.identity == sizes_of(interval_ms, 1).identity
