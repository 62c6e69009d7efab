"""One test for every way in which leases went wrong elsewhere (limits.md), on the real script."""

import pytest

from cpro.limits.leases import Answer, Ask, Lease, Limit, Policy, Request, birth, build_ask, take_answer
from tests.support.lease_script import TimedStore
from tests.support.processes import eventually
from tests.support.redis import RedisServer

POLICY = Policy()
START_US = 1_800_000_000_000_000
BOOT_NS = 5 * 10**12
HOLDER, OTHER = b"holder-1" * 2, b"holder-2" * 2
LIMIT = Limit(0x4242424242424242, 10_000_000, 1_000_000_000)  # 100 tokens, 100 a second
SECOND = 10**6


class World:
    """One bucket, holders with their own clocks, and every message in the test's hands."""

    def __init__(self, store: TimedStore, limit: Limit = LIMIT):
        self.store, self.limit, self.now_us = store, limit, START_US
        store.lose("user")

    def lease(self, tokens: int = 30, holder: bytes = HOLDER) -> Lease:
        """A holder with so many tokens in hand, fresh from the store."""
        lease = Lease(birth(self.local_ns()))
        ask = self.ask(lease, holder=holder)._replace(extra=tokens)
        self.book(lease, ask, self.call(ask))
        assert lease.tokens == tokens
        return lease

    def local_ns(self) -> int:
        return BOOT_NS + (self.now_us - START_US) * 1000

    def ask(self, lease: Lease, need: int = 0, holder: bytes = HOLDER, **keywords) -> Ask:
        """No extra, and nothing goes back for lack of demand, unless the test says so."""
        lease.demand_mtps = 10**6
        return build_ask(lease, self.limit, holder, self.local_ns(), POLICY, need, **keywords)._replace(extra=0)

    def call(self, ask: Ask, need: int = 0) -> Answer:
        return self.store.call(self.now_us, Request("user", (ask,), need))

    def book(self, lease: Lease, ask: Ask, answer: Answer) -> bool:
        return take_answer(lease, ask, answer, 0, self.local_ns(), POLICY)

    def exact(self, need: int, score: int = 1, *, act: bool = True) -> Answer:
        """Somebody who takes no lease."""
        return self.store.call(self.now_us, Request("user", (Ask(self.limit),), need, score), act=act)

    def left(self) -> int:
        return self.exact(0, act=False).balances[0].left


@pytest.fixture(scope="module")
def client(lease_redis):
    with lease_redis.client() as client:
        yield client


@pytest.fixture
def world(client):
    return World(TimedStore(client, POLICY))


def test_a_bucket_admits_its_burst_and_then_one_token_a_step(world):
    assert world.exact(99).admitted == 99
    assert world.exact(2).admitted == 1
    assert world.exact(1) == Answer(False, 0, 10_000_000, world.exact(1, act=False).balances)
    world.now_us += 9_999
    assert (world.exact(1).admitted, world.exact(1).wait_ns) == (0, 1000)
    world.now_us += 1
    assert world.exact(1).admitted == 1
    world.now_us += 999_999
    assert world.left() == 99
    world.now_us += 1
    assert world.exact(101).admitted == 100


def test_a_user_at_exactly_the_limit_gets_all_of_it(client):
    world = World(TimedStore(client, POLICY), Limit(1, 10_000_000, 10_000_000))
    lease = Lease(1)
    for _ in range(50):
        ask = world.ask(lease, need=1)
        answer = world.call(ask, need=1)
        world.book(lease, ask, answer)
        assert answer.admitted == 1
        world.now_us += 10_000


def test_a_score_is_paid_at_once_or_not_at_all(world):
    assert world.exact(1, score=60).admitted == 1
    answer = world.exact(1, score=60)
    assert (answer.admitted, answer.balances[0].left, answer.wait_ns) == (0, 40, 200_000_000)
    assert world.exact(1, score=101).wait_ns == -1
    assert world.exact(1, score=2**60).wait_ns == -1
    assert world.exact(1, score=40, act=False).admitted == 1
    assert world.exact(1, score=40).admitted == 1


def test_several_buckets_grant_the_least_and_name_the_longest_wait(world):
    small = Limit(7, 50_000_000, 150_000_000)
    asks = (Ask(LIMIT), Ask(small))
    answer = world.store.call(world.now_us, Request("user", asks, 5))
    assert (answer.admitted, answer.wait_ns) == (3, 50_000_000)
    assert [balance.left for balance in answer.balances] == [97, 0]
    assert world.store.call(world.now_us, Request("user", asks, 1)).admitted == 0
    assert world.left() == 97


def test_refill_stops_where_available_and_outstanding_make_a_bucket(world):
    world.lease(30)
    assert world.exact(100).admitted == 70
    world.now_us += 5 * SECOND
    assert world.left() == 70


def test_expired_tokens_count_as_spent_from_then_on_and_in_order(world):
    world.lease(30)
    world.now_us += 5 * SECOND
    world.lease(20, OTHER)
    assert world.exact(100).admitted == 50
    world.now_us += 5 * SECOND + 150_000  # 30 expired 150 ms ago; before, refill stood at 50
    assert world.left() == 50 + 15
    world.now_us += 5 * SECOND  # 20 expired 150 ms ago; before, refill stood at 80
    assert world.left() == 80 + 15


def test_a_request_that_comes_twice_has_no_second_effect(world):
    lease = world.lease(30)
    lease.spend(10, world.local_ns())
    ask = world.ask(lease, need=5)
    first = world.call(ask, need=5)
    left = world.left()
    again = world.call(ask, need=5)
    assert (first.admitted, again.admitted, again.is_stale) == (5, 0, True)
    assert again.balances[0].granted == first.balances[0].granted
    assert world.left() == left


def test_an_earlier_request_that_comes_later_has_no_effect(world):
    lease = world.lease(30)
    earlier, later = world.ask(lease, need=5), world.ask(lease, need=1)
    assert world.call(later, need=1).admitted == 1
    answer = world.call(earlier, need=5)
    assert (answer.is_stale, answer.admitted) == (True, 0)
    tokens = lease.tokens
    assert not world.book(lease, earlier, answer)
    assert lease.tokens == tokens


def test_a_lost_answer_costs_what_waited_and_no_more(world):
    lease = world.lease(10)
    lost = world.ask(lease, need=10)._replace(extra=20)  # the ten in hand went back for those that wait
    assert world.call(lost, need=10).admitted == 10
    ask = world.ask(lease)
    world.book(lease, ask, world.call(ask))
    assert lease.tokens == 20
    assert world.left() == 100 - 10 - 20


def test_an_answer_that_comes_after_a_later_one_is_not_booked_twice(world):
    lease = world.lease(10)
    slow = world.ask(lease)._replace(extra=20)
    slow_answer = world.call(slow)
    ask = world.ask(lease)
    answer = world.call(ask)
    assert world.book(lease, ask, answer)
    assert not world.book(lease, slow, slow_answer)
    assert not world.book(lease, ask, answer)
    assert lease.tokens == 30


def test_an_answer_to_the_record_that_was_here_before_is_not_booked(world):
    old = Lease(birth(world.local_ns()))
    ask = world.ask(old)._replace(extra=20)
    answer = world.call(ask)
    world.now_us += 1
    new = Lease(birth(world.local_ns()))
    assert world.ask(new).sequence == ask.sequence
    assert not world.book(new, ask, answer)
    assert new.tokens == 0


def test_a_record_whose_totals_were_lost_begins_a_new_life(world):
    lease = world.lease(10)
    ghost = Lease(lease.start)
    ask = world.ask(ghost)
    answer = world.call(ask)
    assert answer.is_stale
    world.now_us += SECOND
    assert not world.book(ghost, ask, answer._replace(balances=(answer.balances[0]._replace(seen=9),)))
    assert (ghost.start != lease.start, ghost.tokens) == (True, 0)


def test_a_slow_clock_does_not_let_a_holder_spend_what_the_store_counts_as_spent(world):
    lease = world.lease(30)
    world.now_us += POLICY.lease_ns // 1000
    slow_ns = BOOT_NS + (POLICY.lease_ns - POLICY.lease_ns // 25)  # four percent slow
    assert not lease.spend(1, slow_ns)


def test_a_deadline_counts_from_sending_not_from_the_answer(world):
    lease = Lease(1)
    ask = world.ask(lease)._replace(extra=30)
    sent_ns = world.local_ns()
    answer = world.call(ask)
    world.now_us += 9 * SECOND  # the answer was under way for that long
    world.book(lease, ask, answer)
    assert lease.deadline_ns == sent_ns + POLICY.lease_ns - POLICY.margin_ns
    world.now_us += SECOND // 2
    assert lease.in_hand(world.local_ns()) == 0


def test_what_was_spent_a_while_ago_no_longer_holds_up_refill(world):
    lease = world.lease(60)
    assert world.exact(100).admitted == 40
    world.now_us += SECOND
    lease.spend(30, world.local_ns())  # half
    world.now_us += SECOND // 2
    lease.spend(30, world.local_ns())
    answer = world.call(world.ask(lease))
    assert answer.balances[0].left == 40 + 30  # 500 ms less a sixteenth would be 46, but 30 is all that made room


def test_what_was_spent_a_while_ago_counts_from_then_and_not_before(world):
    lease = world.lease(60)
    assert world.exact(100).admitted == 40
    world.now_us += SECOND
    lease.spend(30, world.local_ns())
    world.now_us += 160_000
    answer = world.call(world.ask(lease))
    assert answer.balances[0].left == 40 + 15  # 160 ms less a sixteenth: the holder's clock may be too fast


def test_a_note_of_the_half_is_worth_nothing_after_the_next_request(world):
    lease = world.lease(60)
    lease.spend(30, world.local_ns())
    assert world.ask(lease).age_ns == 0
    world.now_us += SECOND
    lease.spend(10, world.local_ns())
    assert world.ask(lease).aged == 0


def test_tokens_given_back_are_there_for_others_at_once(world):
    lease = world.lease(30)
    assert world.exact(100).admitted == 70
    ask = world.ask(lease, leave=True)
    world.book(lease, ask, world.call(ask))
    assert (lease.tokens, world.left()) == (0, 30)


def test_a_holder_that_dies_strands_its_tokens_until_they_expire(world):
    world.lease(30)
    assert world.exact(100).admitted == 70
    world.now_us += 9 * SECOND
    assert world.left() == 70
    world.now_us += 2 * SECOND
    assert world.left() == 100


def test_a_store_that_lost_the_user_honours_what_holders_report_and_no_more(world):
    lease, other = world.lease(30), world.lease(25, OTHER)
    world.store.lose("user")
    assert world.exact(60).admitted == 60
    ask = world.ask(lease)
    world.book(lease, ask, world.call(ask))
    assert (lease.tokens, world.left()) == (30, 10)
    ask = world.ask(other, holder=OTHER)
    world.book(other, ask, world.call(ask))
    assert (other.tokens, world.left()) == (10, 0)


def test_a_replica_that_lacks_the_last_writes_does_not_refill_that_time_again(world):
    lease = world.lease(30)
    assert world.exact(70).admitted == 70
    lease.spend(30, world.local_ns())
    saved = world.store.snapshot("user")
    world.now_us += SECOND // 2
    ask = world.ask(lease, need=30)
    answer = world.call(ask, need=30)
    world.book(lease, ask, answer)
    world.store.roll_back("user", saved)
    ask = world.ask(lease)
    answer = world.call(ask)
    assert (answer.balances[0].seen, answer.balances[0].left) == (1, 0)


def test_a_server_whose_clock_steps_back_refills_nothing_and_keeps_leases(world):
    world.lease(30)
    assert world.exact(100).admitted == 70
    world.now_us -= 3600 * SECOND
    assert world.left() == 0
    assert world.exact(1).admitted == 0
    lease = Lease(9)  # any report writes the new time down
    world.call(world.ask(lease, holder=OTHER))
    world.now_us += SECOND
    assert world.left() == 70
    world.now_us += 10 * SECOND
    assert world.left() == 100


def test_a_new_rate_keeps_the_share_that_is_used(world):
    world.exact(50)
    world.limit = Limit(0x4242424242424242, 5_000_000, 1_000_000_000)
    assert world.left() == 100
    world.limit = Limit(0x4242424242424242, 100_000_000, 1_000_000_000)
    assert world.left() == 5


def test_a_burst_that_is_changed_twice_or_changed_back_keeps_the_share_that_is_used(world):
    small, large = world.limit, Limit(0x4242424242424242, 10_000_000, 3_000_000_000)
    world.exact(50)
    for world.limit, left in ((large, 150), (small, 50), (large, 150)):
        assert world.left() == left
        world.exact(0)
    world.exact(135)  # nineteen twentieths of the large one are used now
    world.limit = small
    assert world.left() == 5
    assert world.exact(100).admitted == 5


def test_nodes_with_different_rates_admit_no_more_than_the_larger_together(world):
    small, large = Limit(3, 100_000_000, 1_000_000_000), Limit(3, 10_000_000, 1_000_000_000)
    admitted = 0
    for step in range(400):
        world.limit = small if step % 2 else large
        admitted += world.exact(3).admitted
        world.now_us += 5_000
    assert admitted <= 100 + 2 * 100


def test_value_and_expiry_come_together_and_outlast_refill_and_leases(client):
    limit = Limit(5, 3600 * 10**9, 24 * 3600 * 10**9)
    world = World(TimedStore(client, POLICY), limit)
    world.exact(24)
    ends_us = world.store.expires_us["user"]
    assert 24 * 3600 * SECOND <= ends_us - START_US <= 24 * 3600 * SECOND + 3 * SECOND
    world.lease(0, OTHER)
    assert world.store.expires_us["user"] >= START_US + 24 * 3600 * SECOND + POLICY.lease_ns // 1000


def test_buckets_of_rules_that_are_gone_disappear(world):
    for identity in range(10, 30):
        world.limit = Limit(identity, 10_000_000, 1_000_000_000)
        world.exact(50)
    large = world.store.client.strlen("user")
    world.now_us += 4 * SECOND
    world.exact(1)
    assert world.store.client.strlen("user") < large / 10


def test_a_user_is_small_in_redis(world):
    name = "cpro:limit:user-123456"
    sizes = []
    for number in range(20):
        ask = Ask(LIMIT, bytes([65 + number]) * 8, 1, 300, 299, spent=5000, returned=200, extra=5)
        world.store.call(world.now_us, Request(name, (ask,), 1))
        sizes.append(world.store.client.memory_usage(name))
    assert sizes[0] <= 260
    assert all((size - sizes[0]) / number <= 50 for number, size in enumerate(sizes) if number)


def test_replicas_get_the_effect_with_its_expiry(lease_redis, tmp_path, world):
    lease_redis.run("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with RedisServer(tmp_path) as replica:
        replica.run("REPLICAOF", "127.0.0.1", lease_redis.port)
        assert eventually(lambda: replica.run("INFO", "replication")["master_link_status"] == "up", 20)
        world.exact(50)
        world.store.client.pexpire("user", 60_000)  # the test's store had taken it away
        assert world.store.client.wait(1, 4000) == 1
        with replica.client() as reader:
            assert reader.get("user") == world.store.client.get("user")
            assert 0 < reader.pttl("user") <= 60_000
