"""The house: who may import whom. Reads every import of `src/`, those of Cython included."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "cpro"

FLOORS = {
    "errors": set(),
    "addresses": set(),
    "clock": set(),
    "operation": set(),
    "logs": {"clock"},
    "_fast": {"errors"},
    "config": {"errors"},
    "http": {
        "errors",
        "clock",
        "logs",
        "_fast.carrier",
        "_fast.connection",
        "_fast.exchange",
        "_fast.forward",
        "_fast.http1",
    },
    "metrics": {"operation", "analytics.schema", "_fast.counters"},
    "redis": {"errors", "config", "_fast.hashing"},
    "limits.rules": {
        "operation",
        "config.model",
        "limits.leases",
        "_fast.buckets",
        "_fast.hashing",
        "_fast.leasetable",
    },
    "limits.gate": {"addresses", "operation", "config.model", "limits.rules", "_fast.buckets"},
    "limits.leases": {"errors"},
    "limits.outage": set(),
    "limits.redis_store": {"errors", "limits.leases", "limits.outage", "redis"},
    "limits.flights": {
        "errors",
        "clock",
        "logs",
        "limits.gate",
        "limits.leases",
        "limits.outage",
        "limits.redis_store",
        "limits.rules",
        "limits.waiting",
        "_fast.leasetable",
    },
    "limits.leaser": {
        "clock",
        "limits.flights",
        "limits.leases",
        "limits.outage",
        "limits.redis_store",
        "limits.rules",
        "limits.waiting",
        "_fast.leasetable",
    },
    "limits.waiting": set(),
    "limits.shared_gate": {
        "operation",
        "clock",
        "config.model",
        "limits.gate",
        "limits.leaser",
        "limits.rules",
        "_fast.buckets",
        "_fast.leasetable",
    },
    "limits.quota": {"_fast.buckets", "_fast.hashing"},
    "limits.shared_quota": {
        "errors",
        "logs",
        "limits.leases",
        "limits.outage",
        "limits.quota",
        "limits.redis_store",
        "limits.waiting",
    },
    "limits.table": {"errors", "_fast"},
    "pipeline": {"operation", "clock"},
    "doors.gateway": {
        "addresses",
        "clock",
        "config.checks",
        "config.model",
        "doors.claims",
        "doors.joined",
        "doors.rows",
        "doors.seal",
        "errors",
        "http",
        "logs",
        "operation",
        "pipeline",
        "_fast.command",
        "_fast.commands",
        "_fast.crowd",
        "_fast.emulation",
        "_fast.http1",
        "_fast.replies",
        "_fast.wsframe",
        "_fast.wsscan",
    },
    "limits.errors": {"config.model"},
    "analytics.schema": set(),
    "doors": {
        "operation",
        "pipeline",
        "clock",
        "logs",
        "config.model",
        "http",
        "limits.quota",
        "_fast.counters",
        "_fast.forward",
        "_fast.http1",
    },
    "analytics.recovery": {"errors", "_fast.journal"},
    "analytics.batch": {"analytics.arrow", "analytics.schema", "_fast.nativeblock"},
    "analytics.arrow": {"analytics.schema", "_fast.nativeblock"},
    "analytics.rollups": set(),
    "analytics.ddl": {"analytics.rollups", "analytics.schema"},
    "analytics.pins": set(),
    "analytics.zstd": set(),
    "analytics.clickhouse_errors": {"errors"},
    "analytics.clickhouse_client": {
        "errors",
        "config",
        "analytics.batch",
        "analytics.clickhouse_errors",
        "analytics.ddl",
        "analytics.zstd",
    },
    "analytics.embedded": {"errors", "logs"},
    "analytics.clickhouse": {
        "errors",
        "logs",
        "config",
        "analytics.batch",
        "analytics.clickhouse_client",
        "analytics.clickhouse_errors",
        "analytics.ddl",
        "analytics.embedded",
        "analytics.pins",
    },
    "analytics.reads": {
        "errors",
        "config",
        "analytics.clickhouse",
        "analytics.clickhouse_client",
        "analytics.embedded",
    },
    "analytics.recorder": {"operation", "clock", "config.model", "analytics.schema"},
    "analytics.places": {"logs"},
    "analytics.backlog": {"analytics.places", "analytics.schema", "errors", "logs", "_fast.journal", "_fast.rows"},
    "analytics.troubles": {"errors", "logs"},
    "analytics.aside": {"analytics.places", "logs"},
    "analytics.sinks": {
        "analytics.aside",
        "analytics.backlog",
        "analytics.batch",
        "analytics.places",
        "analytics.schema",
        "analytics.troubles",
        "errors",
        "extension",
        "logs",
        "_fast.columns",
    },
    "analytics.shipper": {"analytics.backlog", "analytics.places", "analytics.sinks", "clock", "extension", "logs"},
    "analytics.query": {"errors"},
    "extension": {"analytics.batch", "config", "errors", "operation"},
    "analytics.segments": {
        "errors",
        "clock",
        "analytics.recovery",
        "analytics.schema",
        "_fast.journal",
        "_fast.segment",
    },
    "hookspecs": {"extension"},
    "plugins": {
        "analytics.batch",
        "clock",
        "config",
        "doors",
        "errors",
        "extension",
        "hookspecs",
        "http",
        "limits.rules",
        "logs",
        "operation",
        "pipeline",
        "_fast.http1",
    },
    "sinktesting": {"analytics", "extension", "_fast"},
    "testing": {
        "clock",
        "config",
        "doors",
        "extension",
        "limits",
        "operation",
        "pipeline",
        "plugins",
        "sinktesting",
        "_fast",
    },
    "status.times": set(),
    "status.sight": set(),
    "status.store": {"errors", "redis", "status.times"},
    "status.shard": {"logs", "status.times"},
    "status.service": {"clock", "errors", "logs", "status.shard", "status.store", "status.times"},
    "status.generations": {"clock", "errors", "logs", "_fast.statusfile"},
    "status.keeper": {"errors", "logs", "status.generations"},
    "status.embedded": {"clock", "status.generations", "status.times"},
    "run": {
        "analytics",
        "clock",
        "config",
        "doors",
        "errors",
        "extension",
        "http",
        "limits",
        "logs",
        "metrics",
        "operation",
        "pipeline",
        "plugins",
        "redis",
        "status",
        "_fast",
    },
    "cli": {"analytics.query", "config", "errors", "plugins", "run"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""A room, and the rooms and modules below it that it may use beside itself."""

FORBIDDEN = {
    "_fast": {"asyncio", "logging", "time", "pluggy", "uvloop", "msgspec"},
    "limits": {"redis", "time", "uvloop"},
    "limits.rules": {"asyncio"},
    "limits.gate": {"asyncio"},
    "limits.shared_gate": {"asyncio"},
    "limits.leases": {"asyncio"},
    "limits.outage": {"asyncio", "logging"},
    "limits.redis_store": {"asyncio"},
    "limits.quota": {"asyncio"},
    "status": {"redis", "time", "uvloop", "msgspec"},
    "pipeline": {"asyncio", "redis", "socket", "time"},
    "doors": {"asyncio", "redis", "socket", "time"},
    "config": {"asyncio", "redis", "time"},
    "http": {"redis", "msgspec", "time"},
    "redis": {"msgspec", "time", "uvloop"},
}
"""Libraries that a room must do without; time comes from `cpro.clock`."""

CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+\(?([\w, ]+)|c?import\s+([\w.]+))", re.MULTILINE)


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*") if path.suffix in {".py", ".pyx", ".pxd", ".pyi"})


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports_of(path: Path) -> set[str]:
    """Full names of what a file imports; `from a import b` counts as `a.b`."""
    text = path.read_text()
    found = set()
    if path.suffix in {".pyx", ".pxd"}:
        for source, names, plain in CYTHON_IMPORT.findall(text):
            imported = (name.split()[0] for name in names.split(",") if name.strip())
            found |= {f"{source}.{name}" for name in imported} if source else {plain}
        return found
    package = ["cpro", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            found |= {f"{source}.{alias.name}" for alias in node.names}
    return found


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def room_of(module: str) -> str:
    """The most specific room of the table that a module stands in."""
    rooms = [room for room in FLOORS if within(module, room)]
    assert rooms, f"{module} stands in no room of the table"
    return max(rooms, key=len)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_what_stands_below_it(path):
    module = name_of(path)
    if module in {"limits", "analytics", "status"}:
        return
    room = room_of(module)
    ours = {name.removeprefix("cpro.") for name in imports_of(path) if within(name, "cpro")} - {"__version__"}
    allowed = FLOORS[room] | {room}
    strangers = {name for name in ours if not any(within(name, one) for one in allowed)}
    assert not strangers


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if path.suffix != ".pyi"],  # a stub may name the types of what it is handed
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_a_room_does_without_what_is_forbidden_there(path):
    module = name_of(path)
    forbidden = set().union(*(libraries for room, libraries in FORBIDDEN.items() if within(module, room)))
    used = {name.split(".")[0] for name in imports_of(path)}
    assert not used & forbidden


def test_the_rooms_do_not_go_round_in_a_circle():
    def below(room: str, seen: tuple[str, ...] = ()) -> None:
        assert room not in seen, " -> ".join((*seen, room))
        for other in FLOORS[room]:
            nearest = [name for name in FLOORS if within(other, name) or within(name, other)]
            for name in nearest:
                if name != room:
                    below(name, (*seen, room))

    for room in FLOORS:
        below(room)


def test_the_table_has_no_rooms_that_are_gone():
    names = {name_of(path) for path in modules()}
    assert not {room for room in FLOORS if not any(within(name, room) for name in names)}
