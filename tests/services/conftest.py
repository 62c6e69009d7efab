import pytest

from tests.support.redis import RedisServer


@pytest.fixture(scope="session")
def lease_redis(tmp_path_factory):
    """A Redis for tests that bring their own time; they flush it."""
    with RedisServer(tmp_path_factory.mktemp("leases")) as server:
        yield server
