"""One file per mistake in tests/config: the loader says exactly the lines written in it, and nothing else."""

from pathlib import Path

import pytest

from cpro.config.load import load
from cpro.errors import ConfigError

FOLDER = Path(__file__).parent.parent / "config"
FILES = sorted(path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".expect")


def told_in(name: str, kind: str) -> list[str]:
    beside = FOLDER / f"{name}.expect"
    text = (beside if beside.exists() else FOLDER / name).read_text()
    mark = f"# {kind}: "
    return sorted(f"{name}: {line.removeprefix(mark)}" for line in text.splitlines() if line.startswith(mark))


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_is_said_with_file_key_and_reason(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(FOLDER)
    expected = told_in(name, "expect")
    try:
        warnings, faults = load(name, {}).warnings, []
    except ConfigError as error:
        warnings, faults = [], error.faults
    assert sorted(faults) == expected
    assert sorted(warnings) == told_in(name, "warn")
    assert faults or warnings, "the file shows no mistake"


@pytest.mark.parametrize("name", FILES)
def test_no_secret_is_ever_said(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(FOLDER)
    try:
        said = load(name, {}).warnings
    except ConfigError as error:
        said = error.faults
    assert not [line for line in said if "hush" in line or "12345" in line]
