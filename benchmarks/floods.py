"""Malformed and hostile floods against the gateway and gearmand's HTTP plugin, and what good clients notice.

Each kind of `gatewayx bench flood` alone, 32 connections as fast as they go, and 8 good clients beside them: what share
of their throughput they keep, their p99, how many connections the flood makes and how much the target's private memory
grows. A flood that a target leaves without answers (nul, oversize, slow-head and others at the plugin) stays small by
itself, so look at both. `wrk` is the good clients' calm throughput by wrk, and malformed_flood.md has the same question
asked with wrk and a flooder in C.

    python benchmarks/floods.py [--rounds 1] [--duration 2] [--output benchmarks/results]
"""

import math

from claims import (
    FUNCTION,
    GEARMAND,
    Bars,
    Found,
    Options,
    Run,
    bench,
    main,
    remarks,
    wrk_requests_per_s,
)
from servers import GATEWAY_COMMAND, start_echo_workers, start_gateway, start_gearmand

from gatewayx.bench.flood import KIND_NAMES
from support import KIB, TIMES, BenchmarkError, ProcessSet, Row, information, median_of

GOOD_CONNECTIONS = 8
FLOOD_CONNECTIONS = 32
CALM_S = 1.0


def kept_share(run: Run) -> float:
    """Of the good traffic before the flood, how much there is during it."""
    before, during = run["flood"]["before"]["rps"], run["flood"]["during"]["rps"]
    return float(during / before) if before else math.nan


def good_p99_ms(run: Run) -> float:
    """Of good traffic during the flood."""
    p99_s = run["flood"]["during"]["p99_s"]
    return math.nan if p99_s is None else 1e3 * float(p99_s)


def growth_kib(run: Run) -> float:
    """Of private memory, from before the run to its peak."""
    return float(run["server"]["memory_peak_bytes"] - run["server"]["memory_start_bytes"]) / KIB


def measure(processes: ProcessSet, options: Options) -> Found:
    """Every kind against both."""
    plugin, server_port, plugin_port = start_gearmand(processes, GEARMAND)
    start_echo_workers(processes, server_port, FUNCTION, 2)
    gateway, gateway_port = start_gateway(processes, GATEWAY_COMMAND, server_port)
    targets = {"gatewayx": (gateway_port, gateway.pid), "plugin": (plugin_port, plugin.pid)}
    runs: dict[str, dict[str, list[Run]]] = {name: {kind: [] for kind in KIND_NAMES} for name in targets}
    flood = ["--connections", str(FLOOD_CONNECTIONS), "--duration", str(options.duration_s), "--calm", str(CALM_S)]
    good = ["--good-connections", str(GOOD_CONNECTIONS), "--body-size", "20", "--unique-bodies", "--check", "echo"]
    for number in range(options.rounds):
        for kind in KIND_NAMES:
            for name in list(targets)[:: -1 if number % 2 else 1]:
                port, pid = targets[name]
                run = bench(processes, "flood", port, "--kind", kind, *flood, *good, pid=pid)
                if name == "gatewayx" and run["errors"]:
                    raise BenchmarkError(f"{kind}: good clients of the gateway had errors: {run['errors']}")
                runs[name][kind].append(run)
                told = run["flood"]
                print(
                    f"{kind}, {name}: {told['rate_reached']:,.0f} connections/s, kept {kept_share(run):.0%}, "
                    f"p99 {good_p99_ms(run):.2f} ms, answers {told['statuses']}",
                    flush=True,
                )
    rows: list[Row] = []
    for kind in KIND_NAMES:
        for name, by_kind in runs.items():
            found = by_kind[kind]
            growth = median_of([growth_kib(run) for run in found])
            statuses = ", ".join(sorted({status for run in found for status in run["flood"]["statuses"]})) or "nothing"
            per_s = median_of([run["flood"]["rate_reached"] for run in found])
            detail = (
                f"{per_s:,.0f} connections/s, answered {statuses}; "
                f"good p99 {median_of([good_p99_ms(run) for run in found]):.2f} ms, memory +{growth:,.0f} KiB"
                f"{remarks(found)}"
            )
            shares = [kept_share(run) for run in found]
            rows.append(information(f"{kind}, {name}: good traffic kept", shares, TIMES, detail))
    calm_by_wrk = wrk_requests_per_s(gateway_port, GOOD_CONNECTIONS, options.duration_s)
    calm = [run["flood"]["before"]["rps"] for found in runs["gatewayx"].values() for run in found]
    rows.append(information("good traffic in calm, gatewayx", calm, "/s", f"by wrk {calm_by_wrk:,.0f}/s"))
    panels = [
        Bars(
            "Good traffic kept during a flood",
            "share of the calm throughput",
            {
                name: {kind: median_of([kept_share(run) for run in found]) for kind, found in by_kind.items()}
                for name, by_kind in runs.items()
            },
        ),
        Bars(
            "Connections the flood makes",
            "a second",
            {
                name: {
                    kind: max(1.0, median_of([run["flood"]["rate_reached"] for run in found]))
                    for kind, found in by_kind.items()
                }
                for name, by_kind in runs.items()
            },
            y_scale="log",
        ),
        Bars(
            "p99 of good traffic during it",
            "milliseconds",
            {
                name: {kind: median_of([good_p99_ms(run) for run in found]) for kind, found in by_kind.items()}
                for name, by_kind in runs.items()
            },
        ),
    ]
    return Found(rows, panels, {"runs": runs, "wrk_calm_rps": calm_by_wrk})


if __name__ == "__main__":
    main(
        "floods",
        "Floods: what good clients notice",
        __doc__ or "",
        {"gearmand": "gearman-job-server", "wrk": "wrk", "cc": "gcc"},
        measure,
    )
