"""One round of one case: start the server, warm it up, load it, stop it."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load import cpro, peers
from benchmarks.load.cases import Case
from benchmarks.load.cpu import machine_ticks, spent
from benchmarks.load.driver import drive, probe
from benchmarks.load.peers import Launch
from benchmarks.load.places import Places
from benchmarks.load.processes import Program

WARM_UP_S = 1


@dataclass(frozen=True)
class Round:
    """What one round measured; `stolen` is the share of the machine's time that its host took away meanwhile."""

    cpu_us: float
    system_share: float
    requests_per_s: float
    p50_us: int
    p99_us: int
    stolen: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Running:
    """A server of a case that has answered correctly, with its backend."""

    program: Program
    launch: Launch
    places: Places


@contextmanager
def running(case: Case) -> Iterator[Running]:
    """Start a case's backend and server, warm up and check the answer; end them by their ids."""
    places = case.places()
    with ExitStack() as programs:
        folder = Path(programs.enter_context(tempfile.TemporaryDirectory(dir=memory_folder(), prefix="cpro-load-")))
        backend = 0
        if case.forwards:
            (folder / "backend").mkdir()
            launch = peers.nginx(folder / "backend", 0)
            programs.enter_context(Program(launch.argv, places.backend, launch.port))
            backend = launch.port
        launch = case.launch(folder, backend)
        program = programs.enter_context(Program(launch.argv, places.server, launch.port, launch.env))
        drive(launch.port, WARM_UP_S, places.load)
        probe(launch.port, case.says.encode())
        yield Running(program, launch, places)
        probe(launch.port, case.says.encode())


def measure(case: Case, seconds: int) -> Round:
    """One round."""
    with running(case) as server:
        pids = server.program.pids()
        stolen, ticks = machine_ticks()
        before = spent(pids)
        seen = drive(server.launch.port, seconds, server.places.load)
        used = spent(pids).since(before)
        stolen_after, ticks_after = machine_ticks()
        if server.launch.api_port:
            cpro.check_limits(server.launch.api_port, seen.requests, refused=case.says != peers.OK_BODY)
        return Round(
            cpu_us=used.run_ns / seen.requests / 1000,
            system_share=used.system_share,
            requests_per_s=seen.requests_per_s,
            p50_us=seen.p50_us,
            p99_us=seen.p99_us,
            stolen=(stolen_after - stolen) / max(1, ticks_after - ticks),
        )


def memory_folder() -> str | None:
    """Where nothing touches a disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
