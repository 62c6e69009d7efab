"""What a test says about statuses: through the API door of a running cpro, or to a worker's statuses directly."""

from cpro.status.times import Times
from tests.support.service import Service, exchange

KEY = {"X-API-Key": "k"}
USER_STATUS = {"http_api": {"key": "k"}, "user_status": {"enabled": True}}
UPDATED = {"result": {"data": {}}}


def call(cpro: Service, method: str, body: object, path: str = "/api/", **headers: str) -> tuple[int, object]:
    """One request of the server API on a connection of its own."""
    connection = cpro.connect(cpro.api)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return exchange(connection, path + method, body, {**KEY, **given})
    finally:
        connection.close()


def result(cpro: Service, method: str, *users: str) -> dict:
    status, answer = call(cpro, method, {"users": users})
    assert status == 200, answer
    return answer["result"]


def statuses(cpro: Service, *users: str) -> dict[str, Times]:
    """(active, online) by user."""
    found = result(cpro, "get_user_status", *users)["statuses"]
    assert [one["user"] for one in found] == list(users)
    return {one["user"]: (one.get("active", 0), one.get("online", 0)) for one in found}
