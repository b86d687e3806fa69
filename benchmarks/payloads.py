"""Payloads of 10 bytes to 8 MiB, against gearmand's HTTP plugin.

Each is echoed by one worker that speaks the protocol itself, since libgearman's reads in quadratic time, and every
answer is compared with its payload. 8 connections. `wrk` is the gateway's throughput by wrk, up to 1 MiB.

    python benchmarks/payloads.py [--rounds 2] [--duration 2] [--output benchmarks/results]
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
from servers import GATEWAY_COMMAND, start_gateway, start_gearmand, start_raw_worker

from support import KIB, MIB, TIMES, ProcessSet, Row, information, median_of

SIZES = {"10 B": 10, "1 KiB": KIB, "16 KiB": 16 * KIB, "128 KiB": 128 * KIB, "1 MiB": MIB, "8 MiB": 8 * MIB}
CONNECTIONS = 8
LARGEST_FOR_WRK_BYTES = MIB
SMALLEST_FOR_WRK_BYTES = 20


def measure(processes: ProcessSet, options: Options) -> Found:
    """Both targets at every size."""
    plugin, server_port, plugin_port = start_gearmand(processes, GEARMAND)
    start_raw_worker(processes, server_port, FUNCTION, 16)
    gateway, gateway_port = start_gateway(processes, GATEWAY_COMMAND, server_port)
    targets = {"gatewayx": (gateway_port, gateway.pid), "plugin": (plugin_port, plugin.pid)}
    runs: dict[str, dict[str, list[Run]]] = {name: {size: [] for size in SIZES} for name in targets}
    by_wrk: dict[str, float] = {}
    for number in range(options.rounds):
        for size, size_bytes in SIZES.items():
            for name in list(targets)[:: -1 if number % 2 else 1]:
                port, pid = targets[name]
                arguments = load_arguments(CONNECTIONS, options.duration_s, size_bytes)
                run = bench(processes, "run", port, *arguments, pid=pid)
                if name == "gatewayx":
                    fail_on_errors(f"{name}, {size}", run)
                runs[name][size].append(run)
                print(f"{size}, {name}: {run['rps']:,.1f}/s, p99 {p99_ms(run):.2f} ms", flush=True)
            if number == 0 and SMALLEST_FOR_WRK_BYTES <= size_bytes <= LARGEST_FOR_WRK_BYTES:
                by_wrk[size] = wrk_requests_per_s(
                    gateway_port, CONNECTIONS, options.duration_s, "foreground", size_bytes
                )
    rows: list[Row] = []
    for size in SIZES:
        ours, theirs = runs["gatewayx"][size], runs["plugin"][size]
        pairs = list(zip(ours, theirs, strict=True))
        wrk = f" (wrk {by_wrk[size]:,.1f}/s)" if size in by_wrk else ""
        detail = f"gatewayx {median_of([run['rps'] for run in ours]):,.1f}/s{wrk}"
        detail += f"{remarks(ours)}, plugin {median_of([run['rps'] for run in theirs]):,.1f}/s{remarks(theirs)}"
        rows.append(information(f"{size}: throughput", [a["rps"] / b["rps"] for a, b in pairs], TIMES, detail))
        detail = f"gatewayx {median_of([p99_ms(run) for run in ours]):.2f} ms"
        detail += f", plugin {median_of([p99_ms(run) for run in theirs]):.2f} ms"
        rows.append(information(f"{size}: p99", [p99_ms(a) / p99_ms(b) for a, b in pairs], TIMES, detail))
    peaks = [run["server"]["memory_peak_bytes"] / MIB for run in runs["gatewayx"]["8 MiB"]]
    rows.append(information("8 MiB: private memory of the gateway, highest", peaks, " MiB", ""))
    bytes_per_s = {
        name: [
            (float(SIZES[size]), median_of([run["rps"] for run in found]) * SIZES[size] / MIB)
            for size, found in by_size.items()
        ]
        for name, by_size in runs.items()
    }
    latency = {
        f"{name} {percentile}": [
            (float(SIZES[size]), median_of([1e3 * run["latency_s"][percentile] for run in found]))
            for size, found in by_size.items()
        ]
        for name, by_size in runs.items()
        for percentile in ("p50", "p99")
    }
    panels = [
        Panel("Echoed payload, 8 connections", "payload, bytes", "MiB a second, each way", bytes_per_s),
        Panel("Latency", "payload, bytes", "milliseconds", latency),
    ]
    return Found(rows, panels, {"runs": runs, "wrk": by_wrk})


if __name__ == "__main__":
    main(
        "payloads",
        "Payloads of 10 bytes to 8 MiB",
        __doc__ or "",
        {"gearmand": "gearman-job-server", "wrk": "wrk"},
        measure,
    )
