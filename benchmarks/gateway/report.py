"""Rounds → medians, ratios, and the tables in Markdown that are kept in the repository."""

from dataclasses import dataclass
from statistics import median

from benchmarks.load.report import machine_lines

SERVERS = {"haproxy": "HAProxy", "gateway": "gateway", "centrifugo": "Centrifugo itself"}


@dataclass(frozen=True)
class Kind:
    """A load, and what is compared of it: the gateway's to HAProxy's."""

    title: str
    what: str
    unit: str
    ship: str
    aim: str
    is_added: bool = False  # what a server adds to Centrifugo's own is compared


KINDS = {
    "roundtrips": Kind("publish and its reply, CPU of one", "cpu_us", "µs", "≤ 2", "≤ 1.3"),
    "broadcast": Kind("broadcast, CPU of a delivered message", "cpu_us", "µs", "≤ 1.5", "≤ 1"),
    "paced": Kind("publish and its reply at half load, p99 that is added", "p99_us", "µs", "≤ 2", "≤ 1.3", True),
    "light": Kind("publish and its reply at a tenth, p99 that is added", "p99_us", "µs", "", "", True),
    "idle": Kind("an idle connection, both legs", "bytes", "bytes", "16 KiB", "8 KiB"),
}
Cases = dict[str, dict[str, list[dict[str, float]]]]


def servers_of(kind: str) -> list[str]:
    """Who is measured."""
    return [name for name in SERVERS if name != "centrifugo" or KINDS[kind].is_added]


def values(cases: Cases, kind: str, name: str) -> list[float]:
    """Round by round, what is compared."""
    what = KINDS[kind].what
    own = [one[what] for one in cases[kind][name]]
    if not KINDS[kind].is_added:
        return own
    return [value - bare[what] for value, bare in zip(own, cases[kind]["centrifugo"], strict=True)]


def ratios(cases: Cases) -> dict[str, list[float]]:
    """The gateway's over HAProxy's, round by round: what both suffered at the same time cancels out."""
    pairs = {kind: zip(values(cases, kind, "gateway"), values(cases, kind, "haproxy"), strict=True) for kind in cases}
    return {kind: [own / other for own, other in found if other > 0] for kind, found in pairs.items()}


def lines(result: dict) -> list[str]:
    cases, shown = result["cases"], result["ratios"]
    listeners, idle = result["listeners"], [one["connections"] for one in cases.get("idle", {}).get("gateway", [])]
    return [
        *machine_lines({**result, "skipped": [], "users": result["connections"], "stolen": 0.0})[:1],
        f"{result['rounds']} interleaved rounds of {result['seconds']:g} s, {result['connections']} connections that "
        f"publish, {listeners:,} that listen, {int(max(idle, default=0)):,} idle; {result['places']}. "
        f"Load of the machine before: {result['machine']['load_before']}.",
        "",
        "| load | gateway | HAProxy | ratio | spread | ship at | aim |",
        "|---|---|---|---|---|---|---|",
        *(_row(cases, kind, shown[kind]) for kind in cases),
        "",
        "| load | server | messages/s | CPU, share of a core | of it kernel | p50, µs | p99, µs |",
        "|---|---|---|---|---|---|---|",
        *(_detail(cases, kind, name) for kind in cases if kind != "idle" for name in servers_of(kind)),
    ]


def _row(cases: Cases, kind: str, found: list[float]) -> str:
    one = KINDS[kind]
    own, other = (median(values(cases, kind, name)) for name in ("gateway", "haproxy"))
    ratio = f"**{median(found):.2f}** | {min(found):.2f} … {max(found):.2f}" if found else "| "
    return f"| {one.title} | {own:,.1f} {one.unit} | {other:,.1f} {one.unit} | {ratio} | {one.ship} | {one.aim} |"


def _detail(cases: Cases, kind: str, name: str) -> str:
    def of(what: str) -> float:
        return median(one.get(what, 0.0) for one in cases[kind][name])

    waits = f"{of('p50_us'):,.0f} | {of('p99_us'):,.0f}" if KINDS[kind].is_added else "| "
    return (
        f"| {KINDS[kind].title.partition(',')[0]} | {SERVERS[name]} | {of('per_s'):,.0f} | {of('cpu_share'):.0%} "
        f"| {of('system_share'):.0%} | {waits} |"
    )


def told(kind: str, one: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.2f}" for name, value in one.items())
