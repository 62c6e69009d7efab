"""The tables of docs/settings.md, from the model."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from .duration import Duration
from .model import (
    TLS,
    Bucket,
    CommandBlock,
    FeatureRedis,
    MethodOverride,
    NamespaceOverride,
    OperationLimit,
    Settings,
)
from .schema import NOTHING, Field, fields_of
from .size import Size
from .starter import default_text
from .views import is_reloadable

_OBJECTS: Final = (TLS, CommandBlock, OperationLimit, NamespaceOverride, MethodOverride, Bucket)  # tables of their own


def tables() -> dict[str, str]:
    """Markdown tables by name: `Settings`, and one for each object that settings share."""
    objects = {block.__name__: _table(block, reloads=False) for block in _OBJECTS}
    return {"Settings": _table(Settings, reloads=True), **objects}


def _table(block: type[msgspec.Struct], *, reloads: bool) -> str:
    head = ["| setting | default | reload | meaning |", "|---|---|---|---|"] if reloads else [
        "| key | default | meaning |",
        "|---|---|---|",
    ]  # fmt: skip
    return "\n".join([*head, *(_row(path, field, reloads=reloads) for path, field in _rows(block, ""))])


def _rows(block: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, Field]]:
    for field in fields_of(block).values():
        path = f"{prefix}{'<operation>' if field.inline else field.name}"
        if field.block is None or issubclass(field.block, (*_OBJECTS, FeatureRedis)):
            yield path, field
        else:
            yield from _rows(field.block, path + ".")


def _row(path: str, field: Field, *, reloads: bool) -> str:
    cells = [f"`{path}`", _default(field), *(["yes" if is_reloadable(path) else "restart"] if reloads else [])]
    return f"| {' | '.join([*cells, _meaning(field)])} |"


def _default(field: Field) -> str:
    if field.block is not None or field.inline:
        return "`{}`"
    return "required" if field.default is NOTHING else f"`{default_text(_plain(field.default))}`"


def _plain(value: Any) -> Any:  # noqa: ANN401 - any setting
    return list(value) if isinstance(value, tuple) else value


def _meaning(field: Field) -> str:
    extra = ""
    if field.choices:
        extra = " One of " + ", ".join(f"`{choice}`" for choice in field.choices) + "."
    elif field.least is not None or field.most is not None:
        kind = field.kind if field.kind in (Duration, Size) else int
        bounds = (("From", field.least), ("to" if field.least is not None else "Up to", field.most))
        extra = " " + " ".join(f"{word} {kind(bound)}" for word, bound in bounds if bound is not None) + "."
    return f"{field.description}{extra}".replace("|", "\\|")
