"""The real script on a real Redis answers whatever it is asked as the plain-Python oracle does."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpro.limits.leases import NOBODY, Ask, Limit, Policy, Request
from tests.oracle.leases import StoreOracle
from tests.support.lease_script import TimedStore

POLICY = Policy()
START_US = 1_800_000_000_000_000
IDENTITIES = [int.from_bytes(name) for name in (b"bucket-A", b"bucket-B", b"bucket-C")]
HOLDERS = [b"holder-1", b"holder-2", b"holder-3", NOBODY]


def limits(identity: int) -> list[Limit]:
    """Sizes as a reload may change them: the last two have the same units."""
    return [
        Limit(identity, 100_000_000, 1_000_000_000),
        Limit(identity, 33_333_334, 1_000_000_020),
        Limit(identity, 1_000_000_000, 60_000_000_000),
        Limit(identity, 500_000_000, 60_000_000_000),
        Limit(identity, 10_000_000, 70_000_000),
        Limit(identity, 10_000_000, 10_000_000),
    ]


SMALL = (4, 5)
"""Those that have streams."""


STREAM = 2**32
SIZES = [limits(identity) for identity in IDENTITIES]
totals = st.integers(0, 70)


@st.composite
def asks(draw, place: int, size: int):
    lease = draw(st.sampled_from(HOLDERS))
    if lease == NOBODY:
        return Ask(SIZES[place][size])
    return Ask(
        SIZES[place][size],
        lease,
        sequence=draw(st.integers(1, 12)),
        acked=draw(st.integers(0, 11)),
        spent=draw(totals),
        aged=draw(totals),
        age_ns=draw(st.sampled_from([0, 1, 1000, 4000, 12_000])) * 1_000_001,
        returned=draw(totals),
        held=draw(totals),
        extra=draw(st.integers(0, 40)),
        pace=draw(st.integers(0, 17)),
    )


@st.composite
def requests(draw, sizes: st.SearchStrategy[int]):
    places = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
    return Request(
        "user",
        tuple(draw(asks(place, draw(sizes))) for place in places),
        need=draw(st.integers(0, 25)),
        score=draw(st.sampled_from([1, 1, 1, 3, 11])),
    )


pauses_us = st.one_of(
    st.just(0),
    st.integers(1, 999),
    st.integers(1, 3_000_000),
    st.integers(9_999_999, 10_000_001),  # a lease's duration
    st.integers(10_000, 400_000),  # a stream's
    st.integers(1, 100_000_000),
    st.integers(-20_000_000, -1),
)


def steps(sizes: st.SearchStrategy[int], most: int):
    return st.lists(st.tuples(pauses_us, requests(sizes), st.booleans() | st.just(True)), min_size=1, max_size=most)


def check(store: TimedStore, script, *, size: int | None = None) -> None:
    """`size` that all asks have, if they do: then the invariant holds."""
    oracle, now_us = StoreOracle(POLICY), START_US
    store.lose("user")
    for pause_us, request, act in script:
        now_us += pause_us
        if store.has_expired("user", now_us):
            oracle.users.clear()  # for good, even if the clock steps back
        assert store.call(now_us, request, act=act) == oracle.call(now_us, request, act=act)
        value = store.client.get("user")
        if value is None:
            continue
        for identity, _, at_us, full, available, *held in msgspec.msgpack.decode(value)[1:]:
            bucket = oracle.users["user"][identity.encode()]
            out = sum(one % STREAM for one in held[4::6])
            assert (at_us, full, available, out) == (bucket.at_us, bucket.full, bucket.available, bucket.out())
            assert available >= 0
            if size is not None:
                assert available + out * limits(0)[size].cost <= full
                assert sum(one // STREAM % 32 for one in held[4::6]) <= 16


@pytest.fixture(scope="module")
def store(lease_redis):
    with lease_redis.client() as client:
        yield TimedStore(client, POLICY)


QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=20_000)


@QUICK
@pytest.mark.parametrize("size", [0, *SMALL])
@given(data=st.data())
def test_no_request_however_odd_breaks_the_invariant(store, size, data):
    check(store, data.draw(steps(st.just(size), 30)), size=size)


@QUICK
@given(steps(st.integers(0, 5), 20))
def test_nodes_with_different_limits_are_answered_as_the_oracle_does(store, script):
    check(store, script)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@LONG
@pytest.mark.parametrize("size", [0, *SMALL])
@given(data=st.data())
def test_no_request_however_odd_breaks_the_invariant_for_long(store, size, data):
    check(store, data.draw(steps(st.just(size), 60)), size=size)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@LONG
@given(steps(st.integers(0, 5), 60))
def test_nodes_with_different_limits_are_answered_as_the_oracle_does_for_long(store, script):
    check(store, script)
