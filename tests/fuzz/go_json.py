"""How Centrifugo reads a connect's answer: with Go's encoding/json, into pointers to structs.

The rules that matter: keys match in any case, by Unicode's simple folding; a key that comes again is read into what is
already there, so members of both objects survive; null empties a pointer and leaves a number or text as it was.
"""

import json
from typing import NamedTuple


class GoRefuses(Exception):  # noqa: N818
    """Go's decoder returns an error."""


class Connect(NamedTuple):
    user: str | None
    """Who is connected; None when nobody is."""
    repeats: bool
    """Some object that we look into has a key twice, whatever its case."""


class Members(list):
    """Of an object: pairs of key and value, in order."""


FOLDED = {ord(c): c.lower() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"} | {0x017F: "s", 0x212A: "k"}
"""Simple folding of what folds to ASCII: beyond A-Z only the long s and the Kelvin sign."""


def fold(key: str) -> str:
    return key.translate(FOLDED)


def read_connect(body: bytes) -> Connect:
    try:
        answer = json.loads(body.decode(errors="replace"), object_pairs_hook=Members, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise GoRefuses(str(error)) from error
    shape = {"result": {"user": str}, "error": {"code": int}, "disconnect": {"code": int}}
    found: dict = {}
    repeats = read_into(found, answer, shape)
    result = found.get("result")
    is_refused = found.get("error") is not None or found.get("disconnect") is not None
    return Connect(None if is_refused or result is None else result.get("user", ""), repeats)


def refuse(constant: str) -> None:
    raise GoRefuses(constant)


def read_into(found: dict, members: object, shape: dict) -> bool:
    """Decode an object into `found`; True when keys repeat, in it or below."""
    if members is None:
        return False
    if not isinstance(members, Members):
        raise GoRefuses("not an object")
    keys = [fold(key) for key, _ in members if fold(key) in shape]
    repeats = len(set(keys)) < len(keys)
    for key, value in members:
        repeats |= read_member(found, fold(key), value, shape.get(fold(key)))
    return repeats


def read_member(found: dict, key: str, value: object, kind: object) -> bool:
    if isinstance(kind, dict):
        if value is None:
            found[key] = None
            return False
        if found.get(key) is None:
            found[key] = {}
        return read_into(found[key], value, kind)
    if kind is not None and value is not None:
        if type(value) is not kind or (kind is int and not 0 <= value < 1 << 32):
            raise GoRefuses(f"{key} is {value!r}")
        found[key] = value
    return False
