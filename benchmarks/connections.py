"""Throughput and latency against gearmand's HTTP plugin, with 1 to 1,024 connections.

Foreground jobs of 20 unique bytes, two libgearman workers, both targets in front of the same gearmand and in turns. A
point is the median of the rounds. The plugin closes each connection after its answer: its latency has the new
connection in it, as its clients do. `wrk` is the gateway's throughput by wrk.

    python benchmarks/connections.py [--rounds 2] [--duration 2] [--output benchmarks/results]
"""

from claims import (
    FUNCTION,
    GEARMAND,
    Found,
    Options,
    Panel,
    Run,
    bench,
    fail_on_errors,
    load_arguments,
    main,
    p99_ms,
    remarks,
    wrk_requests_per_s,
)
from servers import GATEWAY_COMMAND, start_echo_workers, start_gateway, start_gearmand

from support import TIMES, ProcessSet, Row, information, median_of

CONNECTIONS = (1, 4, 16, 64, 256, 1024)


def measure(processes: ProcessSet, options: Options) -> Found:
    """Both targets at every number of connections."""
    plugin, server_port, plugin_port = start_gearmand(processes, GEARMAND)
    start_echo_workers(processes, server_port, FUNCTION, 2)
    gateway, gateway_port = start_gateway(processes, GATEWAY_COMMAND, server_port)
    targets = {"gatewayx": (gateway_port, gateway.pid), "plugin": (plugin_port, plugin.pid)}
    runs: dict[str, dict[int, list[Run]]] = {name: {count: [] for count in CONNECTIONS} for name in targets}
    by_wrk: dict[int, float] = {}
    for number in range(options.rounds):
        for count in CONNECTIONS:
            for name in list(targets)[:: -1 if number % 2 else 1]:
                port, pid = targets[name]
                run = bench(processes, "run", port, *load_arguments(count, options.duration_s), pid=pid)
                if name == "gatewayx":
                    fail_on_errors(f"{name}, {count} connections", run)
                runs[name][count].append(run)
                print(f"{count} connections, {name}: {run['rps']:,.0f}/s, p99 {p99_ms(run):.2f} ms", flush=True)
            if number == 0:
                by_wrk[count] = wrk_requests_per_s(gateway_port, count, options.duration_s)
    rows: list[Row] = []
    for count in CONNECTIONS:
        ours, theirs = runs["gatewayx"][count], runs["plugin"][count]
        pairs = list(zip(ours, theirs, strict=True))
        rates = f"gatewayx {median_of([run['rps'] for run in ours]):,.0f}/s (wrk {by_wrk[count]:,.0f}/s)"
        rates += f"{remarks(ours)}, plugin {median_of([run['rps'] for run in theirs]):,.0f}/s{remarks(theirs)}"
        latencies = f"gatewayx {median_of([p99_ms(run) for run in ours]):.2f} ms"
        latencies += f", plugin {median_of([p99_ms(run) for run in theirs]):.2f} ms"
        rows.append(
            information(f"{count} connections: throughput", [a["rps"] / b["rps"] for a, b in pairs], TIMES, rates)
        )
        rows.append(
            information(f"{count} connections: p99", [p99_ms(a) / p99_ms(b) for a, b in pairs], TIMES, latencies)
        )
    throughput = {
        name: [(float(count), median_of([run["rps"] for run in found])) for count, found in by_count.items()]
        for name, by_count in runs.items()
    }
    latency = {
        f"{name} {percentile}": [
            (float(count), median_of([1e3 * run["latency_s"][percentile] for run in found]))
            for count, found in by_count.items()
        ]
        for name, by_count in runs.items()
        for percentile in ("p50", "p99")
    }
    throughput["gatewayx by wrk"] = [(float(count), rate) for count, rate in by_wrk.items()]
    panels = [
        Panel("Foreground jobs: throughput", "connections", "jobs a second", throughput, y_scale="linear"),
        Panel("Foreground jobs: latency", "connections", "milliseconds", latency),
    ]
    return Found(rows, panels, {"runs": {name: list(found.values()) for name, found in runs.items()}, "wrk": by_wrk})


if __name__ == "__main__":
    main(
        "connections",
        "gatewayx and gearmand's plugin, 1 to 1,024 connections",
        __doc__ or "",
        {"gearmand": "gearman-job-server", "wrk": "wrk", "cc": "gcc"},
        measure,
    )
