"""cpro under test: its settings for each case, and proof that the limits were asked."""

import json
import re
import urllib.request
from pathlib import Path

from benchmarks.load.peers import Launch
from benchmarks.load.processes import free_port

BLOCKS = ("client_command", "user_command", "redis_user_command")
NEVER_REACHED = {"interval": "1s", "rate": 1_000_000}
REACHED_AT_ONCE = {"interval": "24h", "rate": 1}


def launch(
    python: str, folder: Path, *, backend: int = 0, refuse: bool = False, workers: int = 1, more: dict | None = None
) -> Launch:
    """Three blocks limit publishes, as an operator would set them; with `refuse` the user's own says no.

    `more` settings are laid over these.
    """
    port, api_port = free_port(), free_port()
    buckets = dict.fromkeys(BLOCKS, NEVER_REACHED)
    if refuse:
        buckets["user_command"] = REACHED_AT_ONCE
    upstream = {"upstream": {"endpoint": f"http://127.0.0.1:{backend}/centrifugo", "timeout": "5s"}} if backend else {}
    settings = {
        "workers": workers,
        "data_dir": str(folder / "data"),
        "limits_table": {"path": str(folder / "table")},
        "proxy": {"address": f"127.0.0.1:{port}", "without_upstream": "allow", **upstream},
        "http_api": {"address": f"127.0.0.1:{api_port}"},
        "client": {"rate_limit": {block: _block(bucket) for block, bucket in buckets.items()}},
        **(more or {}),
    }
    config = folder / "cpro.json"
    config.write_text(json.dumps(settings))
    return Launch([python, "-m", "cpro", "serve", "-c", str(config)], port, api_port=api_port)


def _block(bucket: dict) -> dict:
    return {"enabled": True, "publish": {"enabled": True, "buckets": [bucket]}}


def check_limits(api_port: int, requests: int, *, refused: bool) -> None:
    """Raise unless nearly every request was decided by the limits that the case is about."""
    with urllib.request.urlopen(f"http://127.0.0.1:{api_port}/metrics", timeout=10) as response:
        text = response.read().decode()
    wanted = [("client", "admitted"), ("user", "refused")] if refused else [(b, "admitted") for b in _SHORT]
    for block, verdict in wanted:
        sample = rf'^cpro_limit_checks_total{{block="{block}",verdict="{verdict}"}} (\S+)$'
        found = re.search(sample, text, re.MULTILINE)
        if found is None or float(found[1]) < 0.9 * requests:
            raise RuntimeError(f"{verdict} by {block}: {found and found[1]} of {requests} requests")


_SHORT = ("client", "user", "redis")
