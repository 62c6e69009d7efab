"""Keys of Centrifugo PRO and of later versions that this version must not take silently.

A feature that arrives deletes its rows here and adds its settings to `model` (or takes their `later=True` away).
"""

from typing import Final

from .faults import Path, render

NOT_YET: Final[frozenset[str]] = frozenset()
WITHOUT_EFFECT: Final = frozenset({"notifications", "snapshots", "max_buffer_size", "grpc_metadata"})


def is_not_yet(path: Path) -> bool:
    return render(path) in NOT_YET


def names_below(path: Path) -> list[str]:
    """Names of later versions directly below a path, for suggestions."""
    parent = render(path)
    return [key.rpartition(".")[2] for key in NOT_YET if key.rpartition(".")[0] == parent]


def is_off(value: object) -> bool:
    """Empty, false, or a block that is switched off and has nothing else switched on."""
    if not isinstance(value, dict):
        return value is None or value is False or value == "" or value == []
    if value.get("enabled") is False:
        return not any(isinstance(child, dict) and child.get("enabled") for child in value.values())
    return all(is_off(child) for child in value.values())
