"""What plugin_comparison.py has measured: its turns, the rows they become, and the report."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gatewayx.bench.measurement import machine as machine_description
from support import (
    KIB,
    MIB,
    TIMES,
    Checked,
    Disturbance,
    Load,
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

CONNECTIONS = 64
IN_FLIGHT_AT_END = CONNECTIONS


@dataclass(frozen=True)
class Settings:
    """What one run was asked to do; goes into the results."""

    rounds: int
    duration_s: float
    workers: int
    connections: int
    idle_connections: int
    large_payload_bytes: int
    large_requests: int
    max_disturbance: float
    gearmand_options: str
    gateway_command: str
    sections: tuple[str, ...]


@dataclass
class Turn:
    """One target under load once."""

    target: str
    round: int
    load: Load
    cpu_s: dict[str, float]
    """Processor seconds by process name."""
    disturbance: Disturbance
    checked: Checked | None = None
    queued_jobs: int | None = None
    """Background jobs the job server had after the turn; each answered request must be among them."""

    def cpu_per_request_s(self) -> float:
        return self.cpu_s[self.target] / self.load.requests

    def problems(self) -> list[str]:
        """Why the answers of this turn were not all right."""
        found = []
        if self.load.error_count:
            found.append(f"{self.target}, round {self.round}: {self.load.errors}")
        if self.checked and self.checked.wrong_count:
            found.append(f"{self.target}, round {self.round}: wrong answers, first {self.checked.wrong[0]}")
        if self.queued_jobs is not None:
            answered = self.load.requests + (self.checked.answers if self.checked else 0)
            # A load that ends leaves requests unanswered whose jobs may have been queued all the same.
            if not answered <= self.queued_jobs <= answered + IN_FLIGHT_AT_END + 1:
                found.append(f"{self.target}, round {self.round}: {answered} answered, {self.queued_jobs} jobs queued")
        return found


@dataclass
class Results:
    """Everything that was measured, round by round."""

    foreground: list[Turn] = field(default_factory=list)
    foreground_pipelined: list[Turn] = field(default_factory=list)
    """With a worker that asks for jobs ahead: then the workers are not the limit."""
    background: list[Turn] = field(default_factory=list)
    background_consumed: list[Turn] = field(default_factory=list)
    discarded: list[Turn] = field(default_factory=list)
    """Turns that others on the machine disturbed and that were repeated."""
    memory_per_connection_bytes: dict[str, list[float]] = field(default_factory=dict)
    resident_bytes: dict[str, list[int]] = field(default_factory=dict)
    large_s: dict[str, list[float]] = field(default_factory=dict)
    """Median time of each round, by client."""


def describe(turn: Turn) -> str:
    load = turn.load
    cpu_s = ", ".join(f"{name} {time_s / load.duration_s:.2f}" for name, time_s in turn.cpu_s.items() if time_s > 0.01)
    return (
        f"{turn.target} round {turn.round}: {load.requests_per_s:,.0f}/s, p50 {1e3 * load.latency_p50_s:.2f} ms, "
        f"p99 {1e3 * load.latency_p99_s:.2f} ms, errors {load.error_count}; cores: {cpu_s}; "
        f"others {turn.disturbance.share:.0%}"
    )


def foreground_rows(results: Results) -> list[Row]:
    turns = results.foreground
    valid = not problems_of(turns, "gateway")
    name = "foreground, 64 connections:"
    throughput = against(turns, "gateway", "plugin", requests_per_s)
    p99 = against(turns, "gateway", "plugin", latency_p99_s)
    native = against(turns, "gateway", "native", requests_per_s)
    return [
        at_least(f"{name} throughput against the plugin", throughput, 2.2, TIMES, rates(turns, "plugin"), valid),
        at_most(f"{name} p99 against the plugin", p99, 0.5, TIMES, latencies(turns, "plugin"), valid),
        at_least(f"{name} throughput against a native client", native, 0.9, TIMES, rates(turns, "native"), valid),
    ]


def pipelined_rows(results: Results) -> list[Row]:
    """No bars: how far each gets when the workers are not the limit."""
    turns = results.foreground_pipelined
    name = "foreground, one pipelining worker:"
    throughput = against(turns, "gateway", "plugin", requests_per_s)
    p99 = against(turns, "gateway", "plugin", latency_p99_s)
    native = against(turns, "gateway", "native", requests_per_s)
    return [
        information(f"{name} throughput against the plugin", throughput, TIMES, rates(turns, "plugin")),
        information(f"{name} p99 against the plugin", p99, TIMES, latencies(turns, "plugin")),
        information(f"{name} throughput against a native client", native, TIMES, rates(turns, "native")),
    ]


def background_rows(results: Results) -> list[Row]:
    turns, consumed = results.background, results.background_consumed
    valid = not problems_of(turns, "gateway")
    cpu_us = {
        target: 1e6 * median_of(values_of(turns, target, Turn.cpu_per_request_s)) for target in ("gateway", "nginx")
    }
    cpu = f"gateway {cpu_us['gateway']:.2f} µs, nginx {cpu_us['nginx']:.2f} µs; {rates(turns, 'nginx')}"
    throughput = against(turns, "gateway", "plugin", requests_per_s)
    nginx = against(turns, "gateway", "nginx", Turn.cpu_per_request_s)
    return [
        at_least(
            "background, 64 connections: throughput against the plugin",
            throughput,
            6,
            TIMES,
            rates(turns, "plugin"),
            valid,
        ),
        at_most(
            "background: processor time a request in the gateway",
            [1e6 * value_s for value_s in values_of(turns, "gateway", Turn.cpu_per_request_s)],
            12,
            " µs",
            "",
            valid,
        ),
        at_most("background: processor time a request against nginx `return 200`", nginx, 1.3, TIMES, cpu, valid),
        information(
            "background, while the workers take the jobs: throughput against the plugin",
            against(consumed, "gateway", "plugin", requests_per_s),
            TIMES,
            rates(consumed, "plugin"),
        ),
    ]


def memory_rows(results: Results) -> list[Row]:
    sizes_kib = {
        name: [value / KIB for value in values] for name, values in results.memory_per_connection_bytes.items()
    }
    idle_kib = sizes_kib["gateway, one request answered"]
    plugin_idle_kib = sizes_kib["plugin, nothing sent"]
    half_kib = sizes_kib["gateway, half a request sent"]
    plugin_half_kib = median_of(sizes_kib["plugin, half a request sent"])
    return [
        at_most(
            "idle connection: private memory against the plugin",
            [gateway / plugin for gateway, plugin in zip(idle_kib, plugin_idle_kib, strict=True)],
            0.5,
            TIMES,
            f"gateway after one answer {median_of(idle_kib):.2f} KiB, "
            f"plugin with nothing sent {median_of(plugin_idle_kib):.2f} KiB",
        ),
        at_most("idle keep-alive connection: private memory", idle_kib, 3, " KiB", ""),
        information("half-sent request: private memory", half_kib, " KiB", f"plugin {plugin_half_kib:.2f} KiB"),
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


def values_of(turns: list[Turn], target: str, value: Callable[[Turn], float]) -> list[float]:
    """One value a round, in the order of the rounds."""
    return [value(turn) for turn in turns if turn.target == target]


def against(turns: list[Turn], target: str, other: str, value: Callable[[Turn], float]) -> list[float]:
    """Each round's ratio: turns of one round are neighbours in time, and the machine's speed drifts."""
    pairs = zip(values_of(turns, target, value), values_of(turns, other, value), strict=True)
    return [numerator / denominator for numerator, denominator in pairs]


def rates(turns: list[Turn], other: str) -> str:
    medians = {target: median_of(values_of(turns, target, requests_per_s)) for target in ("gateway", other)}
    return ", ".join(f"{target} {median:,.0f}/s" for target, median in medians.items())


def latencies(turns: list[Turn], other: str) -> str:
    medians = {target: median_of(values_of(turns, target, latency_p99_s)) for target in ("gateway", other)}
    return ", ".join(f"{target} {1e3 * median:.2f} ms" for target, median in medians.items())


def requests_per_s(turn: Turn) -> float:
    return turn.load.requests_per_s


def latency_p99_s(turn: Turn) -> float:
    return turn.load.latency_p99_s


def problems_of(turns: list[Turn], target: str | None = None) -> list[str]:
    return [problem for turn in turns if target in (None, turn.target) for problem in turn.problems()]


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
        "What the rows mean: [README](../README.md).",
        measured_rows_markdown(rows),
    ]
    kinds = (
        ("Foreground", results.foreground),
        ("Foreground, one pipelining worker", results.foreground_pipelined),
        ("Background", results.background),
        ("Background, while the workers take the jobs", results.background_consumed),
    )
    for name, turns in kinds:
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
    problems = problems_of(
        results.foreground + results.foreground_pipelined + results.background + results.background_consumed
    )
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
