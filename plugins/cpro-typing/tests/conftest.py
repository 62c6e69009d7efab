"""cpro with the plugin as pip installs it."""

import shutil
from pathlib import Path

import pytest
from tests.support.packages import install

PACKAGE = Path(__file__).parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("centrifugo") and shutil.which("centrifugo") is None:
        pytest.skip("no centrifugo on PATH")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which cpro finds the plugin, installed into a folder of its own."""
    return install(PACKAGE, tmp_path_factory.mktemp("installed"))
