"""`kill -9` of any process, or of all, at any moment under load: what was answered is in the table, exactly once."""

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from tests.support.acknowledged import Publishers, faults
from tests.support.analytics_service import analytics, ask, drained, processes
from tests.support.processes import eventually
from tests.support.service import Service

ALLOW = {"workers": 2, "proxy": {"without_upstream": "allow"}}


def kill(cpro: Service, what: str) -> None:
    """One process, or all of them; after that the service runs again, or starts doing so by itself."""
    if what == "all":
        cpro.kill_all()
        cpro.start()
        return
    running = processes(cpro, what)
    if running:  # else the one that was killed last is not back yet
        with suppress(ProcessLookupError):
            os.kill(random.choice(running), signal.SIGKILL)


def stored(cpro: Service) -> dict[str, int]:
    return {row["user"]: row["n"] for row in ask(cpro, "SELECT user, count() n FROM operations GROUP BY user")}


def torment(tmp_path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    with Service(tmp_path, {**ALLOW, **analytics()}) as cpro, Publishers(lambda: cpro.proxy, pause_s=0.001) as load:
        for number in range(rounds):
            load.go_on(100)
            time.sleep(chance.uniform(0.05, 1.0))
            kill(cpro, ("analyst", "worker", "all")[number % 3])
        load.go_on(100)
        load.__exit__()
        assert eventually(lambda: drained(cpro), 60)
        assert faults(load, stored(cpro)) == {}, f"seed {seed}"


@pytest.mark.timeout(180)
def test_what_was_answered_is_stored_once_whoever_is_killed(tmp_path):
    torment(tmp_path, 10, random.randrange(10**6))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_kills(tmp_path):
    torment(tmp_path, 100, random.randrange(10**6))


def test_the_analyst_comes_back_and_serving_never_noticed(tmp_path):
    with Service(tmp_path, {**ALLOW, **analytics()}) as cpro, Publishers(lambda: cpro.proxy, 2, 0.002) as load:
        (first,) = processes(cpro, "analyst")
        os.kill(first, signal.SIGKILL)
        assert cpro.wait_for("analyst died, starting it again")["status"] == -signal.SIGKILL
        assert eventually(lambda: processes(cpro, "analyst") not in ([], [first]))
        load.__exit__()
        assert load.unknown == []
        assert eventually(lambda: drained(cpro))
        assert faults(load, stored(cpro)) == {}


def test_nothing_outlives_the_supervisor(tmp_path):
    with Service(tmp_path, {**ALLOW, **analytics()}) as cpro:
        pids = [*processes(cpro, "analyst"), *processes(cpro, "worker")]
        assert len(pids) == 3
        os.kill(cpro.process.pid, signal.SIGKILL)
        cpro.process.wait()
        assert eventually(lambda: not any(_is_running(pid) for pid in pids))


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
