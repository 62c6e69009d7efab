"""What is measured, and what is compared with what."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import cpro, peers
from benchmarks.load.peers import OK_BODY, Launch
from benchmarks.load.places import Places, apart, together

REFUSED_BODY = '"code":111'


@dataclass(frozen=True)
class Case:
    """One server doing one thing. `launch` is given a folder and the backend's port."""

    name: str
    title: str
    launch: Callable[[Path, int], Launch]
    forwards: bool = False
    says: str = OK_BODY
    places: Callable[[], Places] = apart


@dataclass(frozen=True)
class Comparison:
    """CPU per request of `case` over that of `peer`; `ship` and `aim` are the most it may be (None: just to know)."""

    title: str
    case: str
    peer: str
    ship: float | None = None
    aim: float | None = None


def cases(python: str) -> list[Case]:
    """All cases; `python` is the interpreter that has cpro."""

    def own(**how: object) -> Callable[[Path, int], Launch]:
        return lambda folder, backend: cpro.launch(python, folder, backend=backend, **how)

    def answering(start: Callable[[Path, int], Launch]) -> Callable[[Path, int], Launch]:
        return lambda folder, backend: start(folder, 0)

    return [
        Case("nginx-return", "nginx `return 200`", answering(peers.nginx)),
        Case("cpro-answered", "cpro, publish answered, three blocks checked", answering(own())),
        Case("cpro-refused", "cpro, publish refused", answering(own(refuse=True)), says=REFUSED_BODY),
        Case("uvicorn-answered", "uvicorn + httptools + `limits`, answered", answering(peers.uvicorn)),
        Case("nginx-proxy", "nginx `proxy_pass`, keep-alive", peers.nginx, forwards=True),
        Case("cpro-forwarded", "cpro, publish forwarded, three blocks checked", own(), forwards=True),
        Case("haproxy-forward", "HAProxy", peers.haproxy, forwards=True),
        Case("envoy-forward", "Envoy", peers.envoy, forwards=True),
        Case("uvicorn-forwarded", "uvicorn + httptools + `limits`, forwarded", peers.uvicorn, forwards=True),
        Case("cpro-1-worker", "cpro, one worker, two cores", answering(own()), places=together),
        Case("cpro-2-workers", "cpro, two workers, two cores", answering(own(workers=2)), places=together),
    ]


COMPARISONS = [
    Comparison("publish answered", "cpro-answered", "nginx-return", 1.25, 1.0),
    Comparison("publish refused", "cpro-refused", "nginx-return"),
    Comparison("publish answered", "cpro-answered", "uvicorn-answered"),
    Comparison("publish forwarded", "cpro-forwarded", "nginx-proxy", 1.3, 1.0),
    Comparison("publish forwarded", "cpro-forwarded", "haproxy-forward"),
    Comparison("publish forwarded", "cpro-forwarded", "envoy-forward"),
    Comparison("publish forwarded", "cpro-forwarded", "uvicorn-forwarded", 0.2),
    Comparison("two workers against one", "cpro-2-workers", "cpro-1-worker", 1.15, 1.05),
]
