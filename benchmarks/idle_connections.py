"""Idle connections, 0 to 10,000: what they cost in memory and what those who are not idle notice.

Each idle connection of the gateway has had one request answered; the plugin closes after an answer, so its connections
have sent nothing; nginx answers `return 200` and holds 1,000 at most. Beside them 8 clients ask for foreground jobs.
Memory is private memory. `wrk` is the gateway's throughput by wrk with the most idle connections.

    python benchmarks/idle_connections.py [--duration 2] [--output benchmarks/results]
"""

import socket
import time

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
    wrk_requests_per_s,
)
from clients import open_idle_connections, post_head
from servers import GATEWAY_COMMAND, start_echo_workers, start_gateway, start_gearmand, start_nginx

from support import KIB, MIB, ProcessSet, Row, information

COUNTS = (0, 100, 1000, 10_000)
CONNECTIONS = 8
GATEWAY = GATEWAY_COMMAND + " --max-connections 12000 --keepalive-timeout 600"


def measure(processes: ProcessSet, options: Options) -> Found:
    """Each target with more and more idle connections."""
    plugin, server_port, plugin_port = start_gearmand(processes, f"{GEARMAND} --file-descriptors 12000")
    start_echo_workers(processes, server_port, FUNCTION, 2)
    gateway, gateway_port = start_gateway(processes, GATEWAY, server_port)
    nginx, nginx_port = start_nginx(processes)
    request = post_head(FUNCTION, 20) + b"x" * 20
    targets = {
        "gatewayx": (gateway_port, gateway, request, "echo"),
        "plugin": (plugin_port, plugin, b"", "echo"),
        "nginx": (nginx_port, nginx, request, "framing"),
    }
    memory: dict[str, dict[int, int]] = {name: {} for name in targets}
    runs: dict[str, dict[int, Run]] = {name: {} for name in targets}
    wrk_rps = 0.0
    for name, (port, process, sent, check) in targets.items():
        arguments = load_arguments(CONNECTIONS, options.duration_s, check=check)
        bench(processes, "run", port, *arguments, pid=process.pid)
        held: list[socket.socket] = []
        try:
            for count in COUNTS:
                # nginx has 4,096 connections, as start_nginx configures it.
                if name == "nginx" and count > 4000:
                    continue
                held += open_idle_connections(port, count - len(held), sent, bool(sent))
                time.sleep(0.5)
                memory[name][count] = process.memory().private_bytes
                run = bench(processes, "run", port, *arguments, pid=process.pid)
                if name == "gatewayx":
                    fail_on_errors(f"{name}, {count} idle", run)
                runs[name][count] = run
                print(
                    f"{count} idle, {name}: {memory[name][count] / MIB:.1f} MiB, {run['rps']:,.0f}/s, "
                    f"p99 {p99_ms(run):.2f} ms",
                    flush=True,
                )
            if name == "gatewayx":
                wrk_rps = wrk_requests_per_s(port, CONNECTIONS, options.duration_s)
        finally:
            for connection in held:
                connection.close()
    rows: list[Row] = []
    for name, by_count in memory.items():
        most = max(by_count)
        each_kib = (by_count[most] - by_count[0]) / most / KIB
        rows.append(
            information(
                f"{name}: private memory an idle connection, of {most:,}",
                [each_kib],
                " KiB",
                f"{by_count[0] / MIB:.1f} MiB without any, {by_count[most] / MIB:.1f} MiB with {most:,}",
            )
        )
        before, after = runs[name][0], runs[name][most]
        rows.append(
            information(
                f"{name}: throughput of 8 clients beside {most:,} idle ones",
                [after["rps"]],
                "/s",
                f"{before['rps']:,.0f}/s without them; p99 {p99_ms(after):.2f} ms, {p99_ms(before):.2f} ms without"
                + (f"; by wrk {wrk_rps:,.0f}/s" if name == "gatewayx" else ""),
            )
        )
    panels = [
        Panel(
            "Private memory",
            "idle connections",
            "MiB",
            {name: [(float(n), size / MIB) for n, size in by_count.items()] for name, by_count in memory.items()},
            x_scale="symlog",
            y_scale="linear",
        ),
        Panel(
            "p99 of 8 clients beside them",
            "idle connections",
            "milliseconds",
            {name: [(float(n), p99_ms(run)) for n, run in by_count.items()] for name, by_count in runs.items()},
            x_scale="symlog",
            y_scale="log",
        ),
    ]
    return Found(rows, panels, {"memory_bytes": memory, "runs": runs, "wrk_rps": wrk_rps})


if __name__ == "__main__":
    main(
        "idle_connections",
        "Idle connections, 0 to 10,000",
        __doc__ or "",
        {"gearmand": "gearman-job-server", "wrk": "wrk", "nginx": "nginx-light", "cc": "gcc"},
        measure,
    )
