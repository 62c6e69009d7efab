"""Text of a configuration file (JSON, YAML, TOML) -> plain values; syntax errors and repeated keys are faults.

No message repeats text of the file: it may be a secret.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any, Final

import yaml

from .faults import Faults, Path

_CORE_SCHEMA: Final = (  # YAML 1.2: `on`, `no`, `12:30`, `010` and dates stay text or plain numbers
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)
_QUOTED: Final = re.compile(r"\s*'[^'<>\s]{2,}'")  # yaml quotes names of tags and aliases, which may be a secret


class Document(dict[Any, Any]):
    """A mapping that remembers which of its keys stood there twice."""

    repeated: tuple[Any, ...] = ()


class BadDocumentError(ValueError):
    """The text is not in its format."""


def read_document(text: str, source: str, faults: Faults) -> Document:
    """The file's settings; what is wrong goes to `faults`, and then the rest may be missing."""
    parse = _PARSERS.get(File(source).suffix.lower())
    if parse is None:
        faults.fault((), "has an unknown extension: use .yaml, .yml, .json or .toml")
        return Document()
    try:
        value = parse(text)
    except BadDocumentError as error:
        faults.fault((), str(error))
        return Document()
    except RecursionError:
        faults.fault((), "is nested too deeply")
        return Document()
    if value is None:
        return Document()
    if not isinstance(value, dict):
        faults.fault((), "must hold settings by name")
        return Document()
    for path in _repeated(value, (), set()):
        faults.fault(path, "stands there more than once")
    return Document(value)


def parse_json(text: str) -> object:
    if not text.strip():
        return None
    try:
        return json.loads(text, object_pairs_hook=_document, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise BadDocumentError(f"line {error.lineno}: is not valid JSON: {error.msg}") from None
    except BadDocumentError:
        raise
    except ValueError:
        raise BadDocumentError("is not valid JSON: a number is too long") from None


def parse_yaml(text: str) -> object:
    try:
        return yaml.load(text, Loader=_YamlLoader)  # noqa: S506 - derived from the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise BadDocumentError(f"{line}is not valid YAML: {_QUOTED.sub('', error.problem or '')}") from None
    except yaml.YAMLError:
        raise BadDocumentError("is not valid YAML: a character that is not allowed") from None
    except ValueError:
        raise BadDocumentError("is not valid YAML: a number is too long") from None


def parse_toml(text: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, _, where = str(error).rpartition(" (at ")
        line = re.match(r"line \d+", where)
        prefix = f"{line[0]}: " if line else ""
        raise BadDocumentError(f"{prefix}is not valid TOML: {problem or 'it ends too early'}") from None
    except ValueError:
        raise BadDocumentError("is not valid TOML: a number or date is out of range") from None


_PARSERS: Final = {".json": parse_json, ".yaml": parse_yaml, ".yml": parse_yaml, ".toml": parse_toml}


def _document(pairs: list[tuple[Any, Any]]) -> Document:
    document = Document(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        document.repeated = tuple(key for key in document if keys.count(key) > 1)
    return document


def _refuse_constant(name: str) -> object:
    raise BadDocumentError(f"is not valid JSON: {name} is not a number")


def _repeated(value: object, path: Path, seen: set[int]) -> Iterator[Path]:
    if not isinstance(value, dict | list) or id(value) in seen:
        return
    seen.add(id(value))  # YAML aliases may form a circle
    if isinstance(value, Document):
        for key in value.repeated:
            yield (*path, str(key))
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    for step, child in steps:
        yield from _repeated(child, (*path, step if isinstance(step, int) else str(step)), seen)


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.2's core schema; not on the C loader, whose stack deep nesting overflows: that kills the process."""


def _construct_mapping(loader: _YamlLoader, node: yaml.MappingNode) -> Iterator[Document]:
    document = Document()
    yield document  # before its contents: an alias inside may point here
    own = [loader.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    document.update(loader.construct_mapping(node))
    document.repeated = tuple({key for key in own if own.count(key) > 1})


def _construct_int(loader: _YamlLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_YamlLoader.yaml_implicit_resolvers = {}
_YamlLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_YamlLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
for _tag, _pattern, _first in _CORE_SCHEMA:
    _YamlLoader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})\\Z"), ["" if c == "\0" else c for c in _first])
