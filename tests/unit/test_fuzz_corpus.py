"""The corpus of `tests/fuzz` runs through its targets, without engine and sanitizers."""

import importlib
from pathlib import Path

import pytest

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"
TARGETS = ("request", "response", "forward", "event", "answer", "frames", "commands")
TARGETS = ("request", "response", "forward", "event", "answer", "row", "segment")
FILES = [path for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_target_holds_for(path):
    importlib.import_module(f"tests.fuzz.targets.{path.parent.name}").run(path.read_bytes())


def test_every_target_has_a_corpus():
    assert {path.parent.name for path in FILES} == set(TARGETS)
