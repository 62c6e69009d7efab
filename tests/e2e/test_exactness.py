"""Contract 4.2 on one node: never one token too many, and none too few, whatever happens to the processes."""

import asyncio
import os
import signal

import pytest

from tests.support.envelope import least_admitted, worst_overshoot
from tests.support.hammer import Hammer
from tests.support.processes import eventually
from tests.support.service import Service, limits

RATE, BURST = 200, 200
SETTINGS = {**limits(publish=(RATE, "1s")), "proxy": {"without_upstream": "allow"}, "workers": 3}


def check(hammer: Hammer) -> None:
    assert hammer.refused, "there must be more demand than the limit allows"
    assert worst_overshoot(hammer.admitted, BURST, RATE) <= 0
    lost = hammer.broken  # answers: nobody knows what they said
    assert len(hammer.admitted) + lost >= least_admitted(hammer.refused, BURST, RATE)


def test_many_workers_admit_exactly_what_one_would(service):
    cpro = service(SETTINGS)
    hammer = Hammer(lambda: cpro.proxy)
    asyncio.run(hammer.run(3, until_refused=True))
    check(hammer)
    assert hammer.broken == 0


def test_a_worker_killed_in_the_middle_changes_nothing(service):
    cpro = service(SETTINGS)
    hammer = Hammer(lambda: cpro.proxy)

    def kill_one() -> None:
        os.kill(cpro.workers()[0], signal.SIGKILL)

    asyncio.run(hammer.run(4, (1.0, kill_one), (2.0, kill_one), until_refused=True))
    check(hammer)
    assert eventually(lambda: cpro.metric("cpro_worker_restarts_total") == 2 and len(cpro.workers()) == 3, 20)


@pytest.mark.parametrize("end", ["kill_all", "stop"])
def test_a_restart_forgets_no_token_that_was_spent(service, end):
    cpro = service({**SETTINGS, **limits(publish=(RATE, "20s", BURST))})
    first = Hammer(lambda: cpro.proxy)
    asyncio.run(first.run(1, until_refused=True))
    getattr(cpro, end)()
    cpro.start()
    second = Hammer(lambda: cpro.proxy)
    asyncio.run(second.run(1))
    history = first.admitted + second.admitted
    assert len(first.admitted) + first.broken >= BURST
    assert worst_overshoot(history, BURST, RATE / 20) <= 0


def test_two_services_do_not_share_buckets(tmp_path):
    with Service(tmp_path / "a", SETTINGS) as one, Service(tmp_path / "b", SETTINGS) as other:
        hammers = [Hammer(lambda: one.proxy, 8), Hammer(lambda: other.proxy, 8)]

        async def both() -> None:
            await asyncio.gather(*(hammer.run(1, until_refused=True) for hammer in hammers))

        asyncio.run(both())
    assert all(len(hammer.admitted) >= BURST for hammer in hammers)
