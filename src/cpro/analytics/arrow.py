"""A block as Arrow arrays, made of its buffers without a Python object per value. Needs the package pyarrow."""

import pyarrow as pa

from cpro._fast.nativeblock import NativeBlock

from .schema import Column, Kind, Table

_TEXTS = pa.list_(pa.string())
_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.WORD: pa.dictionary(pa.int32(), pa.string()),
    Kind.ID: pa.string(),
    Kind.U32: pa.uint32(),
    Kind.U64: pa.uint64(),
    Kind.I64: pa.int64(),
    Kind.SECONDS: pa.timestamp("s", "UTC"),
    Kind.TEXT_MAP: pa.map_(pa.string(), pa.string()),
    Kind.TEXTS_MAP: pa.map_(pa.string(), _TEXTS),
}


def build_table(block: NativeBlock, table: Table) -> pa.Table:
    arrays = [_build_array(block, column) for column in table.columns]
    return pa.Table.from_arrays(arrays, schema=pa.schema([(one.name, _TYPES[one.kind]) for one in table.columns]))


def _build_array(block: NativeBlock, column: Column) -> pa.Array:
    if block.rows == 0 or column.name not in block.columns:
        return pa.nulls(block.rows, _TYPES[column.kind])
    parts = block.buffers(column.name)
    try:
        array = _from_buffers(parts, column.kind, block.rows)
        array.validate(full=True)  # Arrow's text must be UTF-8
    except pa.ArrowInvalid:
        return _from_values(block.values(column.name), column.kind)
    return array


def _from_buffers(parts: tuple[bytes, ...], kind: Kind, rows: int) -> pa.Array:
    if kind in (Kind.TEXT, Kind.ID):
        return _strings(*parts)
    if kind is Kind.WORD:
        return pa.DictionaryArray.from_arrays(_numbers(pa.int32(), parts[0], rows), _strings(*parts[1:]))
    if kind is Kind.SECONDS:
        return _numbers(pa.uint32(), parts[0], rows).cast(pa.int64()).cast(_TYPES[kind])
    if kind in (Kind.TEXT_MAP, Kind.TEXTS_MAP):
        values = _strings(*parts[-2:])
        if kind is Kind.TEXTS_MAP:
            values = pa.ListArray.from_arrays(_offsets(parts[3]), values)
        return pa.MapArray.from_arrays(_offsets(parts[0]), _strings(*parts[1:3]), values)
    return _numbers(_TYPES[kind], parts[0], rows)


def _from_values(values: list[object], kind: Kind) -> pa.Array:
    if kind in (Kind.TEXT_MAP, Kind.TEXTS_MAP):
        values = [list(one.items()) if isinstance(one, dict) else one for one in values]
    return pa.array(values, _TYPES[kind])


def _strings(offsets: bytes, data: bytes) -> pa.Array:
    count = len(offsets) // 4 - 1
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _numbers(type_: pa.DataType, data: bytes, rows: int) -> pa.Array:
    return pa.Array.from_buffers(type_, rows, [None, pa.py_buffer(data)])


def _offsets(data: bytes) -> pa.Array:
    return _numbers(pa.int32(), data, len(data) // 4)
