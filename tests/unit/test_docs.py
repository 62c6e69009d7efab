"""What the documents say is so: their examples work, and the tables name exactly what the code has."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cpro.config.load import load
from cpro.doors.upstream import OUTCOMES
from cpro.metrics import CHECK_VERDICTS, UPSTREAM_OUTCOMES, VERDICTS, Catalogue

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()


def fenced(text: str, language: str) -> list[str]:
    """The code blocks of a language, without the indentation of the list they may stand in."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]


def test_the_readmes_configuration_loads_without_a_fault_or_warning(tmp_path):
    example, gateway, analytics = fenced(README, "yaml")
    path = tmp_path / "cpro.yaml"
    path.write_text(example + gateway + analytics)
    loaded = load(str(path), {})
    assert loaded.warnings == []
    assert loaded.settings.client.rate_limit.user_command.operations["publish"].buckets[1].rate == 100
    assert loaded.settings.gateway.enabled


def test_the_readmes_centrifugo_configuration_is_what_the_command_prints(tmp_path):
    (shown,) = fenced(README, "json")
    path = tmp_path / "cpro.yaml"
    path.write_text(fenced(README, "yaml")[0])
    command = [sys.executable, "-m", "cpro", "centrifugoconfig", "-c", str(path)]
    printed = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout)
    shown = json.loads(shown)
    assert shown["client"]["proxy"]["connect"] == printed["client"]["proxy"]["connect"]
    assert shown["channel"]["without_namespace"] == printed["channel"]["without_namespace"]


def test_the_first_example_is_the_one_limit_the_readme_speaks_of():
    loaded = load(str(ROOT / "examples" / "first.yaml"), {})
    (bucket,) = loaded.settings.client.rate_limit.user_command.operations["publish"].buckets
    assert (bucket.rate, bucket.interval.seconds) == (5, 60)
    assert "examples/first.yaml" in README
    assert f"http://{loaded.settings.proxy.address}{loaded.settings.proxy.prefix}/publish" in README


def test_the_readmes_two_commands_name_files_that_exist():
    first, _, second = fenced(README, "sh")[:3]
    assert shlex.split(first)[-1] == "examples/first.yaml"
    assert (ROOT / shlex.split(second)[-1]).exists()


def test_links_between_documents_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"


def documented_metrics() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `cpro_(\w+)` \|([^|]*)\|", METRICS, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_metric_is_documented_with_its_labels_and_no_other():
    families = {family.name: set(family.labels) for family in Catalogue().families}
    families["limit_checks_total"] = {"block", "verdict"}
    families["limit_evictions_total"] = set()
    assert documented_metrics() == families


@pytest.mark.parametrize("value", [*VERDICTS, *CHECK_VERDICTS, *UPSTREAM_OUTCOMES])
def test_every_label_value_is_documented(value):
    assert f"`{value}`" in METRICS


def test_every_command_is_in_the_readme_or_the_contributing_guide():
    listed = subprocess.run([sys.executable, "-m", "cpro", "--help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  (\w+)  ", listed.partition("Commands:")[2], re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        assert f"cpro {command}" in README, command


def test_examples_are_valid_configurations():
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        assert yaml.safe_load(path.read_text())
        load(str(path), {})


def test_metrics_and_the_door_mean_the_same_outcomes():
    assert UPSTREAM_OUTCOMES == OUTCOMES
