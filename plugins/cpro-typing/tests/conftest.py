"""cpro with the plugin as pip installs it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.packages import with_packages

PACKAGE = Path(__file__).parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("centrifugo") and shutil.which("centrifugo") is None:
        pytest.skip("no centrifugo on PATH")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which cpro finds the plugin, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # pip builds where the source is
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build"))
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "--target", str(folder / "site"), str(source)], check=True)
    return with_packages(folder / "site")
