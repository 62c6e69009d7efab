"""One generation of the status table: what it holds, what expires, and that a file of another kind is not believed."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.statusfile import DONE, FOLLOW, FULL, StatusFile, file_bytes
from cpro.errors import StoreError

KEY, BOOT = bytes(range(16)), b"b" * 16


def create(folder: Path, slots: int = 1000, number: int = 1, key: bytes = KEY) -> StatusFile:
    return StatusFile.create(str(folder / f"{number}.table"), number, slots, key, BOOT)


@pytest.fixture
def table(tmp_path):
    file = create(tmp_path)
    yield file
    file.close()


def test_what_is_stored_is_known_and_nothing_else(table):
    assert table.update("42", 1000, 2000, 0) == DONE
    assert table.get("42", 0) == (1000, 2000)
    assert table.get("43", 0) == (0, 0)
    assert table.get_many(["43", "42", "42"], 0) == [(0, 0), (1000, 2000), (1000, 2000)]
    assert table.used == 1


def test_no_time_moves_backwards_and_each_moves_alone(table):
    for active, online in [(1000, 0), (0, 900), (999, 950), (1001, 0), (5, 5)]:
        table.update("42", active, online, 0)
    assert table.get("42", 0) == (1001, 950)


def test_times_up_to_the_end_of_32_bits_are_kept(table):
    last = 2**32 - 1
    table.update("42", last, last - 1, last - 2)
    assert table.get("42", last - 2) == (last, last - 1)


def test_online_moves_only_by_the_step_it_is_told(table):
    table.update("42", 0, 1000, 0)
    table.update("42", 0, 1059, 0, 60)
    assert table.get("42", 0) == (0, 1000)
    table.update("42", 0, 1060, 0, 60)
    assert table.get("42", 0) == (0, 1060)


def test_who_was_not_heard_of_for_too_long_is_unknown_and_begins_anew(table):
    table.update("42", 1000, 500, 0)
    assert table.get("42", 999) == (1000, 500)
    assert table.get("42", 1000) == (0, 0)
    table.update("42", 0, 3000, 1000)
    assert table.get("42", 0) == (0, 3000), "what has expired does not come back with the next update"


def test_the_forgotten_are_unknown(table):
    table.update("42", 1000, 1000, 0)
    table.forget("42")
    table.forget("never seen")
    assert table.get("42", 0) == (0, 0)
    table.update("42", 7, 0, 0)
    assert table.get("42", 0) == (7, 0)


@pytest.mark.parametrize("user", ["", "0", "ü", "\0", "a" * 10_000, "名前", "42 "])
def test_any_text_is_a_user(table, user):
    assert table.update(user, 5, 6, 0) == DONE
    assert table.get(user, 0) == (5, 6)
    assert table.get(user + "x", 0) == (0, 0)


def test_a_full_table_says_so_and_keeps_what_it_has(tmp_path):
    table = create(tmp_path, 100)
    said = [table.update(str(n), n + 1, 0, 0) for n in range(table.slots)]
    room = said.count(DONE)
    assert 0.9 * table.slots < room < table.slots
    assert said == [DONE] * room + [FULL] * (table.slots - room)
    assert table.get_many([str(n) for n in range(room)], 0) == [(n + 1, 0) for n in range(room)]
    assert table.update("0", 1000, 0, 0) == DONE
    assert table.live(0) == room


def test_a_move_takes_those_along_who_have_not_expired(tmp_path):
    old = create(tmp_path, 1000)
    for n in range(500):
        old.update(str(n), n + 1, 0, 0)
    new = create(tmp_path, 1000, 2)
    old.following = 2
    assert old.update("0", 1, 1000, 0) == FOLLOW
    new.update("3", 9, 9, 0)
    new.update("499", 7, 0, 0)
    assert old.move_into(new, 250)
    assert not old.moved
    old.end_move()
    assert old.moved
    assert new.used == 250 + 2  # beside those of 251 to 500: "3" was there, "0" is online
    assert new.get("0", 250) == (1, 1000)
    assert new.get("3", 0) == (9, 9)
    assert new.get("499", 0) == (500, 0)
    assert new.get("249", 0) == (0, 0)


def test_a_move_without_room_says_so(tmp_path):
    old, new = create(tmp_path, 1000), create(tmp_path, 100, 2)
    for n in range(500):
        old.update(str(n), 5, 0, 0)
    assert not old.move_into(new, 0)


def test_tables_with_different_keys_are_not_mixed(tmp_path):
    with pytest.raises(ValueError, match="different keys"):
        create(tmp_path).move_into(create(tmp_path, number=2, key=b"k" * 16), 0)


def test_a_table_is_found_again(tmp_path):
    create(tmp_path).update("42", 5, 6, 0)
    again = StatusFile.open(str(tmp_path / "1.table"), 1)
    assert again.get("42", 0) == (5, 6)
    assert (again.boot_id, again.hash_key, again.used) == (BOOT, KEY, 1)
    assert os.stat(again.path).st_mode & 0o777 == 0o600


def _cut(data: bytes) -> bytes:
    return data[:-512]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: b"x" * 100,
        lambda data: b"\0" * len(data),
        _cut,
        lambda data: data + b"\0" * 512,
        lambda data: data[:-1],
        lambda data: b"other" + data[5:],
        lambda data: data[:8] + b"\2" + data[9:],
    ],
    ids=["empty", "short", "zeros", "cut", "longer", "odd", "other magic", "other version"],
)
def test_what_is_not_a_whole_table_is_not_opened(tmp_path, change):
    create(tmp_path).close()
    path = tmp_path / "1.table"
    path.write_bytes(change(path.read_bytes()))
    assert StatusFile.open(str(path), 1) is None


def test_a_slot_that_a_crash_left_half_taken_is_completed(tmp_path):
    """`low` is there, `high` is not: it belongs to whoever comes next with that `low`."""
    table = create(tmp_path)
    table.update("42", 5, 6, 0)
    path = tmp_path / "1.table"
    data = bytearray(path.read_bytes())
    place = next(n for n in range(4096, len(data), 8) if data[n : n + 8] != b"\0" * 8)
    data[place + 8 : place + 24] = b"\0" * 16
    path.write_bytes(data)
    table = StatusFile.open(str(path), 1)
    assert table.get("42", 0) == (0, 0)
    assert table.update("42", 7, 8, 0) == DONE
    assert table.get("42", 0) == (7, 8)
    table.recount()
    assert table.used == 1


def test_a_closed_table_says_so(tmp_path):
    table = create(tmp_path)
    table.close()
    table.close()
    for use in (
        lambda: table.update("42", 1, 1, 0),
        lambda: table.get("42", 0),
        lambda: table.forget("42"),
        table.sync,
    ):
        with pytest.raises(StoreError):
            use()


def test_a_million_users_fit_in_less_than_64_bytes_each_and_are_told_apart(tmp_path):
    users = [f"user-{number}" for number in range(1_000_000)]
    table = create(tmp_path, 1_400_000)
    for number, user in enumerate(users, start=1):
        table.update(user, number, 2_000_000 - number, 0)
    assert table.get_many(users, 0) == [(number, 2_000_000 - number) for number in range(1, 1_000_001)]
    assert table.used == 1_000_000
    assert file_bytes(1_400_000) == os.path.getsize(table.path) < 64 * len(users)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 100), st.integers(0, 100), st.booleans()), max_size=60)
)
def test_any_sequence_ends_as_a_dictionary_would(tmp_path_factory, steps):
    table = create(tmp_path_factory.mktemp("h"), 21)
    model: dict[str, tuple[int, int]] = {}
    for user, active, online, is_forgotten in steps:
        if is_forgotten:
            table.forget(user)
            model.pop(user, None)
        else:
            assert table.update(user, active, online, 0) == DONE
            known = model.get(user, (0, 0))
            model[user] = (max(known[0], active), max(known[1], online))
    assert table.get_many(list("abcdef"), 0) == [model.get(user, (0, 0)) for user in "abcdef"]
