"""Who does one thing after another is told of once in a while."""

import asyncio

from cpro.status import sight
from cpro.status.sight import SPAN_S, Sight
from tests.support import virtual


def test_a_user_is_told_of_once_a_span():
    async def main():
        told: list[str] = []
        one = Sight(told.append, 3600)
        for user in "aabab":
            one.see(user)
        assert told == ["a", "b"]
        for _ in range(2):
            await asyncio.sleep(SPAN_S)
            one.see("a")
            one.see("a")
        assert told == ["a", "b", "a", "a"]
        one.close()

    virtual.run(main())


def test_who_is_soon_forgotten_is_told_of_more_often():
    async def main():
        told: list[str] = []
        one = Sight(told.append, 0.04)
        assert one._span_s == 0.01
        one.close()

    virtual.run(main())


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

    virtual.run(main())
