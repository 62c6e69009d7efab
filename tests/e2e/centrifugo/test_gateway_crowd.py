"""How many connections there may be, over all workers of a node."""

import os
import signal
from collections.abc import Callable

import pytest

from tests.e2e.centrifugo.conftest import Stack, StartStack
from tests.support.processes import eventually
from tests.support.upgrades import Upgrades

pytestmark = pytest.mark.centrifugo

PATIENT = {"client": {"stale_close_delay": "120s"}}
"""For clients that never say a word."""


@pytest.fixture
def crowded(stack: StartStack):
    def start(**gateway: object) -> Stack:
        settings = {"workers": 2, "gateway": {"enabled": True, "trusted_proxies": ["127.0.0.0/8"], **gateway}}
        return stack(settings, answer=None, centrifugo=PATIENT)

    return start


def who(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


def test_an_address_has_its_limit_over_all_workers(crowded: Callable[..., Stack]):
    started = crowded(max_connections_per_ip=3)
    with Upgrades(started.service.gateway) as first, Upgrades(started.service.gateway) as others:
        assert [first.ask(who("192.0.2.1")) for _ in range(20)] == [101] * 3 + [503] * 17
        assert [others.ask(who("192.0.2.2")) for _ in range(4)] == [101] * 3 + [503]
        customers = [f"2001:db8::{number:x}" for number in range(10)]
        assert [others.ask(who(address)) for address in customers] == [101] * 3 + [503] * 7
        first.close()
        assert eventually(lambda: first.ask(who("192.0.2.1")) == 101)


def test_a_node_has_its_limit_over_all_workers(crowded: Callable[..., Stack]):
    started = crowded(max_connections=4)
    with Upgrades(started.service.gateway) as first:
        assert [first.ask(who(f"192.0.2.{number}")) for number in range(20)] == [101] * 4 + [503] * 16


def test_connections_of_a_killed_worker_are_given_back(crowded: Callable[..., Stack]):
    started = crowded(max_connections_per_ip=3)
    cpro = started.service
    with Upgrades(cpro.gateway) as first:
        assert [first.ask(who("192.0.2.1")) for _ in range(4)] == [101] * 3 + [503]
        for pid in cpro.workers():
            os.kill(pid, signal.SIGKILL)
        with Upgrades(cpro.gateway) as again:
            assert eventually(lambda: again.ask(who("192.0.2.1")) == 101, 30.0)
            assert [again.ask(who("192.0.2.1")) for _ in range(10)] == [101] * 2 + [503] * 8
