"""What plugin_comparison.py has measured: its turns, the rows they become, and the report."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from turns import (
    CONNECTIONS,
    Turn,
    against,
    latencies,
    latency_p50_s,
    latency_p99_s,
    problems_of,
    processor_times,
    rates,
    requests_per_s,
    values_of,
)

from gatewayx.bench.measurement import machine as machine_description
from support import (
    GEARMAND_TABLE,
    KIB,
    MIB,
    TIMES,
    Row,
    at_least,
    at_most,
    information,
    markdown_table,
    measured_rows_markdown,
    median_of,
    now_text,
    package_versions,
    program_version,
    source_revision,
    text_table,
)

MANY_CONNECTIONS = 256


@dataclass(frozen=True)
class Settings:
    """What one run was asked to do; goes into the results."""

    rounds: int
    duration_s: float
    workers: int
    connections: int
    idle_connections: int
    filling_connections: int
    """A process that has just started has some MiB in its heap that are private but free: these take them."""
    large_payload_bytes: int
    large_requests: int
    max_disturbance: float
    gearmand_options: str
    gateway_command: str
    against: str
    """The commit of another gateway that this one is compared with; empty for none."""
    sections: tuple[str, ...]


@dataclass
class Before:
    """This gateway and another, a fresh gearmand for each turn of either."""

    background: list[Turn] = field(default_factory=list)
    foreground: list[Turn] = field(default_factory=list)
    single: list[Turn] = field(default_factory=list)
    resident_bytes: dict[str, list[int]] = field(default_factory=dict)
    """One second after the start, by gateway."""


@dataclass
class Results:
    """Everything that was measured, round by round."""

    foreground: list[Turn] = field(default_factory=list)
    foreground_pipelined: list[Turn] = field(default_factory=list)
    """With a worker that asks for jobs ahead: then the workers are not the limit."""
    background: list[Turn] = field(default_factory=list)
    background_many: list[Turn] = field(default_factory=list)
    """With MANY_CONNECTIONS, gateway and nginx only."""
    background_consumed: list[Turn] = field(default_factory=list)
    single: list[Turn] = field(default_factory=list)
    """One client, one foreground request at a time, one worker."""
    discarded: list[Turn] = field(default_factory=list)
    """Turns that others on the machine disturbed and that were repeated."""
    memory_per_connection_bytes: dict[str, list[float]] = field(default_factory=dict)
    resident_bytes: dict[str, list[int]] = field(default_factory=dict)
    large_s: dict[str, list[float]] = field(default_factory=dict)
    """Median time of each round, by client."""
    before: Before = field(default_factory=Before)

    def turns(self) -> dict[str, list[Turn]]:
        """All that count, by what they are."""
        return {
            "Foreground": self.foreground,
            "Foreground, one pipelining worker": self.foreground_pipelined,
            "Background": self.background,
            f"Background, {MANY_CONNECTIONS} connections": self.background_many,
            "Background, while the workers take the jobs": self.background_consumed,
            "One client, one request at a time": self.single,
            "Background, against another gateway": self.before.background,
            "Foreground, against another gateway": self.before.foreground,
            "One request at a time, against another gateway": self.before.single,
        }


def foreground_rows(results: Results) -> list[Row]:
    turns = results.foreground
    valid = not problems_of(turns, "gateway")
    name = "foreground, 64 connections:"
    throughput = against(turns, "gateway", "plugin", requests_per_s)
    p99 = against(turns, "gateway", "plugin", latency_p99_s)
    native = against(turns, "gateway", "native", requests_per_s)
    return [
        at_least(
            f"{name} throughput against the plugin", throughput, 2.2, TIMES, rates(turns, "gateway", "plugin"), valid
        ),
        at_most(f"{name} p99 against the plugin", p99, 0.5, TIMES, latencies(turns, "gateway", "plugin"), valid),
        at_least(
            f"{name} throughput against a native client", native, 0.9, TIMES, rates(turns, "gateway", "native"), valid
        ),
    ]


def pipelined_rows(results: Results) -> list[Row]:
    """No bars: how far each gets when the workers are not the limit."""
    turns = results.foreground_pipelined
    name = "foreground, one pipelining worker:"
    throughput = against(turns, "gateway", "plugin", requests_per_s)
    p99 = against(turns, "gateway", "plugin", latency_p99_s)
    native = against(turns, "gateway", "native", requests_per_s)
    return [
        information(f"{name} throughput against the plugin", throughput, TIMES, rates(turns, "gateway", "plugin")),
        information(f"{name} p99 against the plugin", p99, TIMES, latencies(turns, "gateway", "plugin")),
        information(f"{name} throughput against a native client", native, TIMES, rates(turns, "gateway", "native")),
    ]


def background_rows(results: Results) -> list[Row]:
    turns, many, consumed = results.background, results.background_many, results.background_consumed
    valid = not problems_of(turns + many, "gateway")
    throughput = against(turns, "gateway", "plugin", requests_per_s)
    cpu_us = [1e6 * value_s for value_s in values_of(turns, "gateway", Turn.cpu_per_request_s)]
    rows = [
        at_least(
            "background, 64 connections: throughput against the plugin",
            throughput,
            3,
            TIMES,
            rates(turns, "gateway", "plugin"),
            valid,
        ),
        at_most("background: processor time a request in the gateway", cpu_us, 12, " µs", "", valid),
    ]
    for number, kept, bar in ((CONNECTIONS, turns, 1.25), (MANY_CONNECTIONS, many, 1.1)):
        name = f"background, {number} connections: processor time a request against nginx `return 200`"
        ratios = against(kept, "gateway", "nginx", Turn.cpu_per_request_s)
        detail = f"{processor_times(kept, 'gateway', 'nginx')}; {rates(kept, 'gateway', 'nginx')}"
        rows.append(at_most(name, ratios, bar, TIMES, detail, valid))
    rows.append(
        information(
            "background, while the workers take the jobs: throughput against the plugin",
            against(consumed, "gateway", "plugin", requests_per_s),
            TIMES,
            rates(consumed, "gateway", "plugin"),
        )
    )
    return rows


def single_rows(results: Results) -> list[Row]:
    """The goals of one request at a time: half of them is waiting for others to be woken."""
    turns = results.single
    valid = not problems_of(turns)
    p50_us = {
        name: [1e6 * time_s for time_s in values_of(turns, name, latency_p50_s)]
        for name in ("gateway", "native", "plugin")
    }
    more_us = [ours - native for ours, native in zip(p50_us["gateway"], p50_us["native"], strict=True)]
    ratios = against(turns, "gateway", "plugin", latency_p50_s)
    detail = ", ".join(f"{name} {median_of(values):.0f} µs" for name, values in p50_us.items())
    name = "one client, one foreground request at a time: p50"
    return [
        at_most(f"{name} above a native client's", more_us, 50, " µs", detail, valid),
        at_most(f"{name} against the plugin, which connects anew", ratios, 1, TIMES, detail, valid),
    ]


def before_rows(before: Before) -> list[Row]:
    valid = not problems_of(before.background + before.foreground + before.single)
    pair = ("gateway", "before")
    rows = []
    if before.background:
        speed = against(before.background, *pair, requests_per_s)
        cpu = against(before.background, *pair, Turn.cpu_per_request_s)
        detail = rates(before.background, *pair)
        times = processor_times(before.background, *pair)
        rows += [
            at_least("background, 64 connections: throughput against before", speed, 1.12, TIMES, detail, valid),
            information("background, 64 connections: processor time a request against before", cpu, TIMES, times),
        ]
    if before.foreground:
        speed = against(before.foreground, *pair, requests_per_s)
        p99 = against(before.foreground, *pair, latency_p99_s)
        detail = rates(before.foreground, *pair)
        times = latencies(before.foreground, *pair)
        rows += [
            at_least("foreground, 64 connections: throughput against before", speed, 1, TIMES, detail, valid),
            at_most("foreground, 64 connections: p99 against before", p99, 1, TIMES, times, valid),
        ]
    if before.single:
        p50_us = {name: [1e6 * time_s for time_s in values_of(before.single, name, latency_p50_s)] for name in pair}
        less_us = [theirs - ours for ours, theirs in zip(p50_us["gateway"], p50_us["before"], strict=True)]
        detail = ", ".join(f"{name} {median_of(values):.0f} µs" for name, values in p50_us.items())
        name = "one client, one foreground request at a time: p50 below before"
        rows.append(at_least(name, less_us, 15, " µs", detail, valid))
    if sizes := before.resident_bytes:
        ratios = [ours / theirs for ours, theirs in zip(sizes["gateway"], sizes["before"], strict=True)]
        detail = ", ".join(f"{name} {median_of(sizes[name]) / MIB:.2f} MiB" for name in pair)
        # Starts of one build differ by half a percent.
        name = "process at rest, after start: resident memory against before"
        rows.append(at_most(name, ratios, 1.005, TIMES, detail))
    return rows


def memory_rows(results: Results) -> list[Row]:
    sizes_kib = {
        name: [value / KIB for value in values] for name, values in results.memory_per_connection_bytes.items()
    }
    idle_kib = sizes_kib["gateway, one request answered"]
    plugin_idle_kib = sizes_kib["plugin, nothing sent"]
    half_kib = sizes_kib["gateway, one request answered, half a head sent"]
    plugin_half_kib = median_of(sizes_kib["plugin, half a head sent"])
    return [
        at_most(
            "idle connection: private memory against the plugin",
            [gateway / plugin for gateway, plugin in zip(idle_kib, plugin_idle_kib, strict=True)],
            0.5,
            TIMES,
            f"gateway after one answer {median_of(idle_kib):.2f} KiB, "
            f"plugin with nothing sent {median_of(plugin_idle_kib):.2f} KiB",
        ),
        at_most("idle keep-alive connection: private memory", idle_kib, 0.5, " KiB", ""),
        at_most(
            "the same with half a head sent after it: private memory",
            half_kib,
            1.5,
            " KiB",
            f"plugin with half a head alone {plugin_half_kib:.2f} KiB",
        ),
    ]


def resident_rows(results: Results) -> list[Row]:
    return [
        at_most(f"process at rest, {name}: resident memory", [size / MIB for size in sizes_bytes], 30, " MiB", "")
        for name, sizes_bytes in results.resident_bytes.items()
    ]


def large_row(results: Results) -> Row:
    ratios = [
        gateway / native for gateway, native in zip(results.large_s["gateway"], results.large_s["native"], strict=True)
    ]
    detail = ", ".join(f"{name} {1e3 * median_of(times_s):.2f} ms" for name, times_s in results.large_s.items())
    return at_most("1 MiB echo, one client: time against a native client", ratios, 1.5, TIMES, detail)


def rows_of(results: Results) -> list[Row]:
    rows: list[Row] = []
    if results.foreground:
        rows += foreground_rows(results)
        rows += pipelined_rows(results)
    if results.background:
        rows += background_rows(results)
    if results.memory_per_connection_bytes:
        rows += memory_rows(results)
    rows += resident_rows(results)
    if results.large_s:
        rows.append(large_row(results))
    if results.single:
        rows += single_rows(results)
    rows += before_rows(results.before)
    return rows


def versions() -> dict[str, str]:
    return {
        "gatewayx": source_revision(),
        **package_versions("uvloop", "httptools"),
        "gearmand": program_version("gearmand", "--version"),
        "wrk": program_version("wrk", "-v"),
        "nginx": program_version("nginx", "-v"),
    }


def turn_lines(turns: list[Turn]) -> list[list[str]]:
    return [
        [
            turn.target,
            str(turn.round + 1),
            f"{turn.load.requests_per_s:,.0f}",
            f"{1e3 * turn.load.latency_p50_s:.2f}",
            f"{1e3 * turn.load.latency_p99_s:.2f}",
            f"{1e6 * turn.cpu_per_request_s():.2f}" if turn.cpu_s.get(turn.target) else "",
            str(turn.load.error_count),
            f"{turn.disturbance.share:.1%}",
        ]
        for turn in sorted(turns, key=lambda turn: (turn.target, turn.round))
    ]


def markdown_report(description: dict[str, Any], rows: list[Row], results: Results) -> str:
    machine = description["machine"]
    settings = description["settings"]
    header = ("target", "round", "a second", "p50 ms", "p99 ms", "CPU µs a request", "errors", "others' share of CPU")
    parts = [
        "# gatewayx against gearmand's HTTP plugin",
        f"{description['date']}. {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_bytes'] / 1024 / MIB:.1f} GiB, Linux {machine['kernel']}, everything on this one machine. "
        + ", ".join(f"{name} {version}" for name, version in description["versions"].items())
        + f". Medians of {settings['rounds']} rounds of {settings['duration_s']:g} s. "
        f"gearmand runs with `{' '.join((*GEARMAND_TABLE, settings['gearmand_options']))}` for the plugin and the "
        "gateway alike. "
        + (f"Before is {settings['against']}. " if settings["against"] else "")
        + "What the rows mean: [README](../README.md).",
        measured_rows_markdown(rows),
    ]
    for name, turns in results.turns().items():
        if turns:
            parts += [f"## {name}, every round", markdown_table(header, turn_lines(turns))]
    if results.discarded:
        parts.append(
            f"{len(results.discarded)} turns were repeated because others used more than "
            f"{settings['max_disturbance']:.0%} of the machine meanwhile."
        )
    if description["problems"]:
        parts += ["## Wrong answers and errors", "\n".join(f"- {problem}" for problem in description["problems"])]
    return "\n\n".join(parts) + "\n"


def write_reports(directory: Path, settings: Settings, rows: list[Row], results: Results) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    problems = problems_of([turn for turns in results.turns().values() for turn in turns])
    description: dict[str, Any] = {
        "date": now_text(),
        "machine": machine_description(),
        "versions": versions(),
        "settings": asdict(settings),
        "problems": problems,
    }
    document = {**description, "rows": [asdict(row) for row in rows], "rounds": asdict(results)}
    (directory / "plugin_comparison.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (directory / "plugin_comparison.md").write_text(markdown_report(description, rows, results))
    print(text_table(rows))
    for problem in problems:
        print(f"problem: {problem}")
    missed = sum(row.passed is False for row in rows)
    print(f"{missed} bars missed" if missed else "all bars met", f"(results in {directory})")
