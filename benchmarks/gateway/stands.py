"""Who stands where: a real Centrifugo, and before it HAProxy as a proxy of WebSockets, or the gateway."""

import base64
import hashlib
import hmac
import json
import shutil
from pathlib import Path

from benchmarks.load import cpro, peers
from benchmarks.load.peers import AbsentError, Launch
from benchmarks.load.processes import free_port

SECRET = "a secret of the benchmark's, and of Centrifugo"
API_KEY = "key"
CHANNEL = "news"
MAX_CONNECTIONS = 8_000


def token(user: str) -> str:
    """A connection token that Centrifugo accepts: a JWT by HMAC-SHA256."""

    def part(raw: bytes) -> bytes:
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps({"sub": user}).encode())
    return (signed + b"." + part(hmac.digest(SECRET.encode(), signed, hashlib.sha256))).decode()


def centrifugo(folder: Path) -> Launch:
    """Clients may publish and subscribe; nobody is pinged while it is measured."""
    path = shutil.which("centrifugo")
    if path is None:
        raise AbsentError("no centrifugo on PATH")
    port = free_port()
    channels = {"allow_publish_for_client": True, "allow_subscribe_for_client": True}
    settings = {
        "http_server": {"address": "127.0.0.1", "port": port},
        "http_api": {"key": API_KEY},
        "client": {
            "token": {"hmac_secret_key": SECRET},
            "ping_interval": "3600s",
            "pong_timeout": "60s",
            "connection_limit": 0,
        },
        "channel": {"without_namespace": channels},
        "usage_stats": {"disabled": True},
        "log": {"level": "error"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "centrifugo.json"
    config.write_text(json.dumps(settings))
    return Launch([path, "-c", str(config)], port, {"GOMAXPROCS": "1"})


def haproxy(folder: Path, behind: int) -> Launch:
    """One thread; after the upgrade it is a tunnel of bytes."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "haproxy.cfg"
    config.write_text(
        f"global\n  nbthread 1\n  maxconn {MAX_CONNECTIONS}\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  timeout tunnel 1h\n"
        f"frontend clients\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend centrifugo\n"
        f"backend centrifugo\n  server one 127.0.0.1:{behind}\n"
    )
    return Launch([peers.haproxy_path(), "-db", "-f", str(config)], port)


def gateway(python: str, folder: Path, behind: int) -> Launch:
    """One worker; three blocks of limits are asked about each publish."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    centrifugos = [f"http://127.0.0.1:{behind}"]
    more = {"gateway": {"enabled": True, "address": f"127.0.0.1:{port}", "centrifugo": centrifugos}}
    launch = cpro.launch(python, folder, more=more)
    return Launch(launch.argv, port, launch.env, launch.api_port)
