"""The commands, as somebody at a terminal sees them."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cpro.config.load import load


def cpro(*arguments: str, folder: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CPRO_")}
    return subprocess.run(
        [sys.executable, "-m", "cpro", *arguments],
        cwd=folder,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_checkconfig_is_silent_about_a_good_file(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("workers: 2\n")
    done = cpro("checkconfig", "-c", "c.yaml", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_checkconfig_prints_faults_and_nothing_else(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("workers: x\nproxy: {prefix: x, without_upstream: allow}\n")
    done = cpro("checkconfig", "--config", "c.yaml", folder=tmp_path, CPRO_LOG_LEVEL="loud")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "c.yaml: workers: must be a whole number",
        "c.yaml: proxy.prefix: must start with /",
        "environment: CPRO_LOG_LEVEL: must be one of none, trace, debug, info, warn, error, fatal",
    ]
    assert done.stderr == ""


def test_checkconfig_puts_warnings_on_stderr(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("proxy: {without_upstream: allow}\n")
    done = cpro("checkconfig", "-c", "c.yaml", folder=tmp_path, CPRO_SERVICE_HOST="10.0.0.1")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "warning: c.yaml: proxy.without_upstream: allow replaces Centrifugo's own permission checks\n"
    )


def test_genconfig_writes_a_private_file_that_loads_without_a_word(tmp_path: Path):
    done = cpro("genconfig", folder=tmp_path)
    path = tmp_path / "cpro.yaml"
    assert done.returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = load(str(path), {})
    assert loaded.warnings == []
    assert loaded.settings.client.rate_limit.user_command.enabled
    secrets = (loaded.settings.secret, loaded.settings.proxy.secret, loaded.settings.http_api.key)
    assert len(set(secrets)) == 3
    assert min(map(len, secrets)) >= 32
    assert not [secret for secret in secrets if secret in done.stdout + done.stderr]


def test_genconfig_is_never_twice_the_same(tmp_path: Path):
    cpro("genconfig", "-o", str(tmp_path / "a.yaml"))
    cpro("genconfig", "-o", str(tmp_path / "b.yaml"))
    assert load(str(tmp_path / "a.yaml"), {}).settings.secret != load(str(tmp_path / "b.yaml"), {}).settings.secret


def test_genconfig_overwrites_nothing(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("mine")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "elsewhere")
    for name in ("mine.yaml", "link.yaml"):
        done = cpro("genconfig", "-o", name, folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr == f"{name}: is there already, and is not overwritten\n"
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["none/c.yaml", "c.json"])
def test_genconfig_says_in_one_line_why_it_can_not(name: str, tmp_path: Path):
    done = cpro("genconfig", "-o", name, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: ")
    assert done.stderr.count("\n") == 1


def test_uncommented_defaults_of_genconfig_are_the_defaults(tmp_path: Path):
    cpro("genconfig", folder=tmp_path)
    lines = (tmp_path / "cpro.yaml").read_text().splitlines()
    said = [line for line in lines if line.strip().startswith("# ") and line.strip()[2:].split(":")[0].isidentifier()]
    assert "# workers: 1" in said
    assert "  # address: 127.0.0.1:8001" in said
    assert "    # timeout: 800ms" in said


def test_centrifugoconfig_prints_json_only(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("proxy: {without_upstream: allow}\n")
    done = cpro("centrifugoconfig", "-c", "c.yaml", folder=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["client"]["proxy"]["connect"]["enabled"]
    assert done.stderr.startswith("warning: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("centrifugoconfig",),
        ("serve", "-c", "none.yaml"),
        ("checkconfig", "-c", "none.yaml"),
        ("centrifugoconfig", "-c", "."),
    ],
)
def test_errors_are_lines_and_never_tracebacks(arguments: tuple[str, ...], tmp_path: Path):
    done = cpro(*arguments, folder=tmp_path, CPRO_PROXY_ADDRESS="unix:///run/x.sock")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) == 1


def test_version_names_cpro_and_python():
    done = cpro("version")
    assert done.returncode == 0
    assert done.stdout.startswith("cpro 0.1.0 (Python 3.")
