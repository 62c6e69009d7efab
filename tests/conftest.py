from pathlib import Path

import pytest

from tests.support.service import Service

OF_PROCESSES = ("tests/adversity/", "tests/e2e/", "tests/services/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole processes on clocks of their own may lose to a machine that stands still: each is asked once more.

    The closing lines name those that were (`-r R`). Unit tests get one try: nothing outside of them can be at fault.
    """
    for item in items:
        if item.nodeid.startswith(OF_PROCESSES):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture
def service(tmp_path: Path):
    """Start cpro with settings: `service({...})`; stopped at the end of the test."""
    running: list[Service] = []

    def start(settings: dict | None = None, **keywords: object) -> Service:
        one = Service(tmp_path / f"cpro{len(running)}", settings, **keywords).start()
        running.append(one)
        return one

    yield start
    for one in running:
        one.__exit__()
