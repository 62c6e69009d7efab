from pathlib import Path

import pytest

from tests.support.service import Service


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
