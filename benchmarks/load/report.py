"""Rounds → medians, ratios, and the tables in Markdown that are kept in the repository."""

from pathlib import Path
from statistics import median

from benchmarks.load.cases import COMPARISONS, Case, Comparison
from benchmarks.load.measure import Round
from benchmarks.load.peers import ROOT

README = ROOT / "benchmarks" / "README.md"
KIB, MIB = 1024, 1024 * 1024
Rounds = dict[str, list[Round]]


def ratios(rounds: Rounds, comparison: Comparison) -> list[float]:
    """CPU per request of one over the other, round by round: what both suffered at the same time cancels out."""
    pairs = zip(rounds.get(comparison.case, []), rounds.get(comparison.peer, []), strict=False)
    return [case.cpu_us / peer.cpu_us for case, peer in pairs]


def ratio_table(rounds: Rounds, titles: dict[str, str]) -> list[str]:
    lines = [
        "| case | peer | CPU per request, ratio to peer | spread | ship at | aim |",
        "|---|---|---|---|---|---|",
    ]
    for comparison in COMPARISONS:
        found = ratios(rounds, comparison)
        if not found:
            continue
        ship, aim = (f"≤ {bound:g}" if bound else "" for bound in (comparison.ship, comparison.aim))
        lines.append(
            f"| {comparison.title} | {titles[comparison.peer]} | **{median(found):.2f}** "
            f"| {min(found):.2f} … {max(found):.2f} | {ship} | {aim} |"
        )
    return lines


def case_table(rounds: Rounds, titles: dict[str, str]) -> list[str]:
    lines = [
        "| server | CPU per request, µs | spread | of it kernel | requests/s | p50, ms | p99, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, own in rounds.items():
        cpu = [one.cpu_us for one in own]
        lines.append(
            f"| {titles[name]} | **{median(cpu):.1f}** | {min(cpu):.1f} … {max(cpu):.1f} "
            f"| {median(one.system_share for one in own):.0%} | {median(one.requests_per_s for one in own):,.0f} "
            f"| {median(one.p50_us for one in own) / 1000:.2f} | {median(one.p99_us for one in own) / 1000:.2f} |"
        )
    return lines


def memory_table(memory: dict[str, dict]) -> list[str]:
    start, idle, table = memory["worker_at_start"], memory["idle_connection"], memory["table_10m"]
    return [
        "| memory | cpro | nginx | ship at |",
        "|---|---|---|---|",
        f"| a worker at start, resident ({start['private'] / MIB:.0f} MiB of it private) "
        f"| {start['resident'] / MIB:.1f} MiB | | 45 MB |",
        f"| an idle keep-alive connection, of {idle['connections']:,} after a request each, without the kernel's part "
        f"| {idle['cpro'] / KIB:.2f} KiB | {idle['nginx'] / KIB:.2f} KiB | 2 KiB |",
        f"| table for 10 M buckets, {table['live']:,} of them live ({table['evicted']:,} evicted) "
        f"| {table['bytes'] / 1e6:.0f} MB | | 256 MB |",
    ]


def anatomy_tables(anatomy: dict[str, dict], rounds: Rounds, titles: dict[str, str]) -> list[str]:
    """System calls per request, and µs per request by part: the share of samples of the measured CPU time."""
    names = list(anatomy)
    head = "|".join(titles[name] for name in names)
    calls = sorted({call for one in anatomy.values() for call in one["calls"]}, key=lambda call: call != "all")
    parts = list(dict.fromkeys(part for one in anatomy.values() for part in one["parts"]))
    lines = [f"| system calls per request |{head}|", "|---|" + "---|" * len(names)]
    for call in calls:
        cells = (f"{found:.2f}" if (found := anatomy[name]["calls"].get(call)) else "" for name in names)
        lines.append(f"| {call} |{'|'.join(cells)}|")
    lines += ["", f"| µs per request |{head}|", "|---|" + "---|" * len(names)]
    cpu_us = {name: median(one.cpu_us for one in rounds[name]) for name in names}
    for part in parts:
        cells = (f"{found * cpu_us[name]:.1f}" if (found := anatomy[name]["parts"].get(part)) else "" for name in names)
        lines.append(f"| {part} |{'|'.join(cells)}|")
    lines.append(f"| all |{'|'.join(f'**{cpu_us[name]:.1f}**' for name in names)}|")
    return lines


def machine_lines(result: dict) -> list[str]:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    lines = [
        f"{machine['date']}; {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; {versions}.",
        f"{result['rounds']} interleaved rounds of {result['seconds']} s, {result['connections']} connections, "
        f"{result['users']:,} users; {result['places']}. Load of the machine before: {machine['load_before']}; "
        f"stolen by its host meanwhile: {result['stolen']:.1%}.",
    ]
    return lines + [f"Skipped: {reason}." for reason in result["skipped"]]


def put(path: Path, marker: str, lines: list[str]) -> None:
    """Replace what stands between `<!-- marker -->` and `<!-- /marker -->`."""
    text = path.read_text()
    begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise RuntimeError(f"{path} has no place marked {marker}")
    path.write_text(head + begin + "\n".join(lines) + "\n" + end + tail)


def titles_of(cases: list[Case]) -> dict[str, str]:
    return {case.name: case.title for case in cases}
