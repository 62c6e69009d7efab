"""Who does one thing after another is told of once in a while."""

import asyncio

import pytest

from cpro.status import sight
from cpro.status.sight import Sight


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(sight, "SPAN_S", 0.05)


def test_a_user_is_told_of_once_a_span():
    async def main():
        told: list[str] = []
        one = Sight(told.append, 3600)
        for user in "aabab":
            one.see(user)
        assert told == ["a", "b"]
        async with asyncio.timeout(5):
            while told.count("a") < 3:
                one.see("a")
                await asyncio.sleep(0.005)
        assert told == ["a", "b", "a", "a"]
        one.close()

    asyncio.run(main())


def test_who_is_soon_forgotten_is_told_of_more_often():
    async def main():
        told: list[str] = []
        one = Sight(told.append, 0.04)
        assert one._span_s == 0.01
        one.close()

    asyncio.run(main())


def test_however_many_there_are_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(sight, "MOST_USERS", 10)

    async def main():
        told: list[str] = []
        one = Sight(told.append, 3600)
        for number in range(100):
            one.see(str(number))
        assert len(told) == 100
        assert len(one._seen) <= 10
        one.close()

    asyncio.run(main())
