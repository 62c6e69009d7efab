"""What is known about a setting, read off the model's annotations: the one way to walk the settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

HIDDEN: Final = "***"
NOTHING: Final = msgspec.NODEFAULT


@dataclass(frozen=True)
class Field:
    """One setting of a block; bounds of durations are nanoseconds."""

    name: str
    kind: Any  # its type
    default: Any  # NOTHING: it must be given
    description: str
    check: str  # a rule of `checks`
    secret: bool
    least: int | None
    most: int | None
    keys: tuple[str, ...]  # known keys of a map; none means any
    inline: bool  # its entries stand directly in the block, not under its name

    @property
    def block(self) -> type[msgspec.Struct] | None:
        """The class of a nested block of settings."""
        return self.kind if isinstance(self.kind, type) and issubclass(self.kind, msgspec.Struct) else None

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()


def about(
    description: str,
    *,
    check: str = "",
    secret: bool = False,
    least: int | None = None,
    most: int | None = None,
    keys: tuple[str, ...] = (),
    inline: bool = False,
) -> msgspec.Meta:
    """Describes a setting where it is declared: `Annotated[str, about("…")]`."""
    extra = {"check": check, "secret": secret, "least": least, "most": most, "keys": keys, "inline": inline}
    return msgspec.Meta(description=description, extra=extra)


class Block(msgspec.Struct, frozen=True):
    """Base of all blocks of settings; its `repr` hides secrets, so none gets into a log or a traceback."""

    def __repr__(self) -> str:
        parts = (
            f"{field.name}={HIDDEN if field.secret and value else repr(value)}"
            for field in fields_of(type(self)).values()
            for value in (getattr(self, field.name),)
        )
        return f"{type(self).__name__}({', '.join(parts)})"


@cache
def fields_of(block: type[msgspec.Struct]) -> dict[str, Field]:
    hints = get_type_hints(block, include_extras=True)
    return {info.name: _field(info, hints[info.name]) for info in msgspec.structs.fields(block)}


def leaves(block: type[msgspec.Struct], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Field]]:
    """All settings under a block that are not blocks themselves, in the model's order."""
    for field in fields_of(block).values():
        if field.block is None:
            yield (*path, field.name), field
        else:
            yield from leaves(field.block, (*path, field.name))


def _field(info: msgspec.structs.FieldInfo, hint: Any) -> Field:  # noqa: ANN401 - annotations have no common type
    if get_origin(hint) is not Annotated:
        raise TypeError(f"setting {info.name} has no description")
    kind, meta = get_args(hint)
    default = info.default_factory() if info.default_factory is not NOTHING else info.default
    return Field(info.name, kind, default, meta.description, **meta.extra)
