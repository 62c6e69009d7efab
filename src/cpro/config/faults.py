"""Collects everything that is wrong with a configuration, each line naming where it was said."""

import difflib
from collections.abc import Iterable
from typing import Final, NamedTuple

Path = tuple[str | int, ...]

DEFAULTS: Final = "defaults"


class Origin(NamedTuple):
    """What set a value if not the source: `environment: CPRO_PROXY` for the path ("proxy",)."""

    label: str
    path: Path


def render(path: Path) -> str:
    """('a', 'b', 0, 'c') -> a.b[0].c"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


class Faults:
    """Faults and warnings of one reading; `origins` knows which values did not come from the source."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.paths: set[Path] = set()
        self.origins: dict[Path, Origin] = {}

    def fault(self, path: Path, text: str) -> None:
        self.paths.add(path)
        self.lines.append(self._line(path, text))

    def warn(self, path: Path, text: str) -> None:
        self.warnings.append(self._line(path, text))

    def fault_at(self, place: str, text: str) -> None:
        """For what belongs to no setting; `place` stands where the source and path would."""
        self.lines.append(f"{place}: {text}")

    def warn_at(self, place: str, text: str) -> None:
        self.warnings.append(f"{place}: {text}")

    def hit(self, path: Path) -> bool:
        """Whether something at or below this path is wrong already."""
        return any(known[: len(path)] == path for known in self.paths)

    def _line(self, path: Path, text: str) -> str:
        origin = self._origin(path)
        return ": ".join(part for part in (origin.label, render(path[len(origin.path) :]), text) if part)

    def _origin(self, path: Path) -> Origin:
        known = (self.origins.get(path[:length]) for length in range(len(path), 0, -1))
        return next((origin for origin in known if origin is not None), Origin(self.source, ()))


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name that is most like this one."""
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1, cutoff=likeness)
    return found[0] if found else None
