"""Values of one record: the first byte chooses the table; any bytes are read, or refused, as by the oracle."""

from cpro._fast.rows import decode, encode
from cpro.analytics.schema import TABLES
from tests.oracle import journal as oracle


def run(data: bytes) -> None:
    kinds = TABLES[data[0] % len(TABLES)].kinds if data else ()
    values = outcome(decode, kinds, data[1:])
    assert values == outcome(oracle.decode, kinds, data[1:])
    if values is not None:
        again = encode(kinds, values)
        assert again == oracle.encode(kinds, values)
        assert decode(kinds, again) == values


def outcome(read, kinds: tuple[int, ...], data: bytes) -> tuple | None:
    try:
        return read(kinds, data)
    except ValueError:
        return None
