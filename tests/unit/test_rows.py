"""The formats of recorded values, held against a plain-Python twin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpro._fast.rows import decode, encode
from cpro.analytics.schema import CONNECTIONS, OPERATIONS, TABLES, Kind
from tests.oracle import journal as oracle

UUID = "9336a229-2400-4ebc-8c50-0123456789ab"
TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)  # lone surrogates included
STRINGS = st.one_of(TEXTS, st.binary(max_size=20))
BY_KIND = {
    Kind.TEXT: STRINGS,
    Kind.WORD: STRINGS,
    Kind.ID: st.one_of(STRINGS, st.uuids().map(str), st.uuids().map(lambda one: str(one).encode())),
    Kind.U32: st.integers(0, 2**32 - 1),
    Kind.U64: st.integers(0, 2**64 - 1),
    Kind.I64: st.integers(-(2**63), 2**63 - 1),
    Kind.SECONDS: st.integers(0, 2**32 - 1),
    Kind.TEXT_MAP: st.dictionaries(TEXTS, STRINGS, max_size=4),
    Kind.TEXTS_MAP: st.dictionaries(TEXTS, st.one_of(st.lists(STRINGS), st.tuples(TEXTS)), max_size=4),
}
ROWS = st.lists(st.sampled_from(Kind), max_size=12).flatmap(
    lambda kinds: st.tuples(st.just(kinds), st.tuples(*(BY_KIND[kind] for kind in kinds)))
)


@given(ROWS)
def test_rows_are_written_as_the_twin_writes_them(kinds_and_values):
    kinds, values = kinds_and_values
    assert encode(kinds, values) == oracle.encode(kinds, values)


@given(ROWS)
def test_rows_are_read_as_they_were_written(kinds_and_values):
    kinds, values = kinds_and_values
    data = encode(kinds, values)
    assert decode(kinds, data) == oracle.decode(kinds, data)
    if not any(kind in (Kind.TEXT_MAP, Kind.TEXTS_MAP) for kind in kinds):
        assert decode(kinds, data) == tuple(
            oracle.as_bytes(value).decode(errors="replace") if isinstance(value, str | bytes) else value
            for value in values
        )


def outcome(read, kinds, data):
    try:
        return read(kinds, data)
    except ValueError:
        return "refused"


@given(st.lists(st.sampled_from(Kind), max_size=4), st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_as_by_the_twin(kinds, data):
    assert outcome(decode, kinds, data) == outcome(oracle.decode, kinds, data)


@given(ROWS, st.data())
def test_a_row_cut_off_anywhere_is_refused(kinds_and_values, draw):
    data = encode(*kinds_and_values)
    if data:
        cut = draw.draw(st.integers(0, len(data) - 1))
        assert outcome(decode, kinds_and_values[0], data[:cut]) == "refused"


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.WORD, Kind.ID])
@pytest.mark.parametrize("unit", ["a", "ж", "€", "😀", "\ud800"])
def test_a_megabyte_of_text_passes(kind, unit):
    (found,) = decode([kind], encode([kind], (unit * 2**20,)))
    assert found == oracle.as_bytes(unit).decode() * 2**20


@pytest.mark.parametrize(
    "text",
    [
        UUID.upper(),
        UUID[:-1] + "g",
        UUID[:-1],
        UUID + "0",
        UUID.replace("-", ""),
        UUID.replace("-", "0"),
        UUID[:35] + "é",
        "-" * 36,
        "",
    ],
)
def test_an_id_that_is_no_canonical_uuid_stays_as_it_is(text):
    data = encode([Kind.ID], (text,))
    assert len(data) == len(text.encode()) + 1
    assert decode([Kind.ID], data) == (text,)


def test_a_canonical_uuid_takes_17_bytes():
    assert len(encode([Kind.ID], (UUID,))) == len(encode([Kind.ID], (UUID.encode(),))) == 17
    assert decode([Kind.ID], encode([Kind.ID], (UUID,))) == (UUID,)


def test_numbers_at_their_bounds_pass_and_beyond_are_errors():
    for kind, least, most in [
        (Kind.U32, 0, 2**32 - 1),
        (Kind.U64, 0, 2**64 - 1),
        (Kind.I64, -(2**63), 2**63 - 1),
        (Kind.SECONDS, 0, 2**32 - 1),
    ]:
        for number in (least, most):
            assert decode([kind], encode([kind], (number,))) == (number,)
        for number in (least - 1, most + 1):
            with pytest.raises(OverflowError):
                encode([kind], (number,))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.TEXT, None),
        (Kind.TEXT, 1),
        (Kind.ID, None),
        (Kind.U32, "1"),
        (Kind.U64, 1.0),
        (Kind.SECONDS, None),
        (Kind.TEXT_MAP, []),
        (Kind.TEXT_MAP, {"a": 1}),
        (Kind.TEXT_MAP, {1: "a"}),
        (Kind.TEXTS_MAP, {"a": "b"}),
        (Kind.TEXTS_MAP, {"a": [None]}),
    ],
)
def test_a_value_of_another_type_is_an_error(kind, value):
    with pytest.raises(TypeError):
        encode([kind], (value,))


def test_rows_of_another_width_are_errors():
    for values in ((), ("a", "b")):
        with pytest.raises(TypeError, match="1 columns"):
            encode([Kind.TEXT], values)


def test_kinds_that_there_are_not_are_errors():
    for kinds in ([0], [10], [Kind.TEXT] * 65):
        with pytest.raises(ValueError, match=r"kind|columns"):
            encode(kinds, ())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_can_be_recorded(table):
    values = {
        Kind.TEXT: "a",
        Kind.WORD: "b",
        Kind.ID: UUID,
        Kind.TEXT_MAP: {"k": "v"},
        Kind.TEXTS_MAP: {"k": ["v", ""]},
    }
    row = tuple(values.get(kind, 1_700_000_000) for kind in table.kinds)
    assert decode(table.kinds, encode(table.kinds, row)) == row


def test_an_operation_takes_few_bytes():
    row = (UUID, "100042", "publish", "chat:room42", "", 0, 0, 123_456, {}, "chat", "node-1", 1_700_000_000)
    assert len(encode(OPERATIONS.kinds, row)) + 9 <= 120


def test_a_map_that_claims_more_than_there_is_costs_no_time_and_no_memory():
    for kind in (Kind.TEXT_MAP, Kind.TEXTS_MAP):
        with pytest.raises(ValueError, match="cut off"):
            decode([kind], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
    assert CONNECTIONS.kinds.count(Kind.TEXTS_MAP) == 2
