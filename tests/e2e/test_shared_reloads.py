"""Reloads of limits that nodes share: through real Redis, what was used stays used, and a new interval starts anew."""

import signal
import time

import pytest

from cpro.metrics import LEASE_EVENTS
from tests.support.processes import eventually
from tests.support.redis import RedisServer
from tests.support.service import REFUSED, Service, event, limits

OK = {"result": {}}
SOON_S = 20.0
"""A second is promised, by a machine that does not stand still."""


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path / "redis") as server:
        yield server


def settings(redis: RedisServer, *publish: object) -> dict:
    proxy = {"without_upstream": "allow"}
    section = limits("redis_user_command", publish=publish)
    section["client"]["rate_limit"]["store_timeout"] = "5s"
    return {
        **section,
        "redis": {"address": redis.address},
        "proxy": proxy,
        "workers": 2,
    }


def admitted(cpro: Service, most: int = 300) -> int:
    """How many are, until one is refused."""
    for number in range(most):
        answer = cpro.post("publish", event())[1]
        if answer != OK:
            assert answer == REFUSED
            return number
    return most


def use(cpro: Service, times: int) -> None:
    assert [cpro.post("publish", event())[1] for _ in range(times)] == [OK] * times


def has_nothing_leased(cpro: Service) -> bool:
    """Whether all that was leased has been reported as spent, or given back."""
    tokens = {event: cpro.metric(f'cpro_lease_tokens_total{{event="{event}"}}') for event in LEASE_EVENTS}
    return tokens["granted"] == sum(tokens.values()) - tokens["granted"]


def test_a_new_interval_starts_a_full_bucket_at_once(tmp_path, redis):
    with Service(tmp_path / "1", settings(redis, 10, "1h")) as one:
        assert admitted(one) == 10
        one.reload(settings(redis, 10, "2h"))
        assert admitted(one) == 10
        assert admitted(one) == 0


def test_a_node_that_was_not_reloaded_yet_keeps_the_old_interval(tmp_path, redis):
    with (
        Service(tmp_path / "1", settings(redis, 10, "1h")) as one,
        Service(tmp_path / "2", settings(redis, 10, "1h")) as two,
    ):
        assert admitted(one) == 10
        assert admitted(two) == 0
        one.reload(settings(redis, 6, "2h"))
        assert admitted(two) == 0, "its bucket is empty still"
        use(one, 3)
        two.reload(settings(redis, 6, "2h"))
        assert admitted(two) + admitted(one) == 3, "one bucket, begun by the other node"


def test_the_old_interval_finds_its_bucket_as_it_left_it(tmp_path, redis):
    with Service(tmp_path / "1", settings(redis, 10, "1h")) as one:
        use(one, 7)
        one.reload(settings(redis, 10, "2h"))
        use(one, 2)
        one.reload(settings(redis, 10, "1h"))
        assert eventually(lambda: has_nothing_leased(one), SOON_S)
        assert admitted(one) == 3


@pytest.mark.parametrize(
    ("changed", "left"),
    [((200, "1h"), 100), ((50, "1h"), 25), ((100, "1h", 40), 20), ((100, "1h", 200), 100), ((200, "1h", 100), 50)],
)
def test_a_new_rate_or_burst_keeps_the_share_used(tmp_path, redis, changed, left):
    with Service(tmp_path / "1", settings(redis, 100, "1h")) as one:
        use(one, 50)
        one.reload(settings(redis, *changed))
        assert eventually(lambda: has_nothing_leased(one), SOON_S)
        assert left - 1 <= admitted(one) <= left, "what refilled meanwhile is less than a token"


def test_a_new_limit_holds_within_a_second_of_the_signal(tmp_path, redis):
    with Service(tmp_path / "1", settings(redis, 1000, "1s")) as one:
        use(one, 100)
        one.write(settings(redis, 1, "1h"))
        one.process.send_signal(signal.SIGHUP)
        began = time.monotonic()
        while one.post("publish", event())[1] == OK:
            assert time.monotonic() - began < SOON_S
