"""The fold table: one write a second (or minute) of a user and node, whoever of its workers asks."""

import os

import pytest

from cpro._fast.statusfold import FoldTable
from cpro.errors import StartError, StoreError


@pytest.fixture
def path():
    memory = os.memfd_create("fold")
    yield f"/proc/{os.getpid()}/fd/{memory}"
    os.close(memory)


def test_of_all_updates_of_a_second_one_is_let_through_whichever_worker_asks(path):
    tables = [FoldTable.create(path, 1000), FoldTable.attach(path), FoldTable.attach(path)]
    assert [table.claim_active("42", 1000, 60) for table in tables] == [True, False, False]
    assert [table.claim_active("42", 1001, 60) for table in reversed(tables)] == [True, False, False]
    assert tables[1].claim_active("43", 1001, 60)


def test_who_is_active_is_online(path):
    table = FoldTable.create(path, 1000)
    assert table.claim_active("42", 1000, 60)
    assert [table.claim_online("42", now, 60) for now in (1000, 1059, 1060, 1061)] == [False, False, True, False]


def test_a_backends_word_says_nothing_of_online(path):
    table = FoldTable.create(path, 1000)
    assert table.claim_active("42", 1000, 0)
    assert not table.claim_active("42", 1000, 0)
    assert table.claim_active("42", 1000, 60), "active is known, online is not"
    assert not table.claim_online("42", 1000, 60)


def test_a_clock_that_was_set_back_stops_nobody(path):
    table = FoldTable.create(path, 1000)
    assert table.claim_active("42", 5000, 60)
    assert table.claim_active("42", 1000, 60)
    assert table.claim_online("42", 900, 60)
    assert not table.claim_online("42", 901, 60)


def test_the_forgotten_are_let_through(path):
    table = FoldTable.create(path, 1000)
    table.claim_active("42", 1000, 60)
    table.forget("42")
    table.forget("43")
    assert table.claim_online("42", 1000, 60)
    assert table.claim_active("42", 1000, 60)


def test_where_there_are_more_users_than_room_those_of_long_ago_give_way(path):
    table = FoldTable.create(path, 4)
    for now, user in enumerate("abcd", start=1):
        assert table.claim_active(user, now, 60)
    assert table.claim_active("e", 5, 60)
    assert not any(table.claim_active(user, now, 60) for now, user in enumerate("bcd", start=2))
    assert table.claim_active("a", 1, 60)


def test_another_kind_of_file_is_not_believed(path):
    FoldTable.create(path, 1000).close()
    with open(path, "r+b") as file:
        file.write(b"x")
    with pytest.raises(StartError, match="not a fold table"):
        FoldTable.attach(path)
    with pytest.raises(StartError):
        FoldTable.attach(path + "0")


def test_a_closed_table_says_so(path):
    table = FoldTable.create(path, 1000)
    table.close()
    table.close()
    with pytest.raises(StoreError):
        table.claim_active("42", 1, 60)
