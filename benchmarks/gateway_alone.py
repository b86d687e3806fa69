"""The gateway alone beside nginx, and the load generator beside wrk.

The gateway stands in front of a job server that answers every submit at once (null_job_server.c), nginx answers
`return 200` itself, or passes requests to another nginx that does (`proxy_pass`, kept connections). One process each,
64 connections, POST with 20 unique bytes. Each is loaded by `gatewayx bench` and by wrk with one thread, in turns.
When wrk itself is the limit it counts latency only from one turn of its loop after the last answer, so that its p50 is
less than connections over throughput allow. So latencies are compared with 4 connections, where neither is.

    python benchmarks/gateway_alone.py [--rounds 3] [--duration 2] [--output benchmarks/results]
"""

from claims import (
    FUNCTION,
    Bars,
    Found,
    Options,
    Run,
    bench,
    load_arguments,
    main,
    p99_ms,
    remarks,
)
from servers import GATEWAY_COMMAND, start_gateway, start_nginx, start_nginx_proxy, start_null_job_server

from support import (
    BENCHMARKS,
    HOST,
    TIMES,
    Load,
    Process,
    ProcessSet,
    Row,
    at_least,
    at_most,
    information,
    median_of,
    run_tag,
    run_wrk,
)

CONNECTIONS = 64
# Few enough that neither load generator is the limit.
LATENCY_CONNECTIONS = 4


def compare_latencies(processes: ProcessSet, options: Options, port: int, pid: int) -> list[tuple[Run, Load]]:
    """The same closed loop by both, in turns; neighbours in time are compared."""
    pairs = []
    for _ in range(2 * options.rounds):
        arguments = load_arguments(LATENCY_CONNECTIONS, options.duration_s, check="framing")
        run = bench(processes, "run", port, *arguments, pid=pid)
        url = f"http://{HOST}:{port}/{FUNCTION}"
        script = BENCHMARKS / "unique_post.lua"
        load = run_wrk(url, script, [run_tag(), "foreground"], LATENCY_CONNECTIONS, options.duration_s)
        pairs.append((run, load))
    return pairs


def measure(processes: ProcessSet, options: Options) -> Found:
    """Every target by both load generators."""
    _, server_port = start_null_job_server(processes)
    gateway, gateway_port = start_gateway(processes, GATEWAY_COMMAND, server_port)
    nginx, nginx_port = start_nginx(processes)
    proxy, proxy_port = start_nginx_proxy(processes, nginx_port)
    targets: dict[str, tuple[int, Process, list[str]]] = {
        "gatewayx, foreground": (gateway_port, gateway, []),
        "gatewayx, background": (gateway_port, gateway, ["--background"]),
        "nginx return 200": (nginx_port, nginx, []),
        "nginx proxy_pass": (proxy_port, proxy, []),
    }
    runs: dict[str, list[Run]] = {name: [] for name in targets}
    by_wrk: dict[str, list[Load]] = {name: [] for name in targets}
    script = BENCHMARKS / "unique_post.lua"
    for number in range(options.rounds):
        for name in list(targets)[:: -1 if number % 2 else 1]:
            port, process, more = targets[name]
            arguments = [*load_arguments(CONNECTIONS, options.duration_s, check="framing"), *more]
            run = bench(processes, "run", port, *arguments, pid=process.pid)
            runs[name].append(run)
            kind = "background" if more else "foreground"
            url = f"http://{HOST}:{port}/{FUNCTION}"
            load = run_wrk(url, script, [run_tag(), kind], CONNECTIONS, options.duration_s)
            by_wrk[name].append(load)
            print(f"{name}: {run['rps']:,.0f}/s, by wrk {load.requests_per_s:,.0f}/s", flush=True)
    latencies = compare_latencies(processes, options, proxy_port, proxy.pid)
    rows: list[Row] = []
    for name, found in runs.items():
        cpu_us = [1e6 * run["server"]["cpu_s"] / run["requests"] for run in found]
        p99 = median_of([p99_ms(run) for run in found])
        detail = f"processor time {median_of(cpu_us):.1f} µs a request, p99 {p99:.2f} ms"
        detail += remarks(found)
        rows.append(information(name, [run["rps"] for run in found], "/s", detail))
    pairs = list(zip(runs["nginx return 200"], by_wrk["nginx return 200"], strict=True))
    ratios = [run["rps"] / load.requests_per_s for run, load in pairs]
    rows.append(at_least("the load generator against wrk -t1, nginx `return 200`: throughput", ratios, 0.8, TIMES, ""))
    for percentile in ("p50", "p99"):
        off = [
            abs(100 * (run["latency_s"][percentile] / getattr(load, f"latency_{percentile}_s") - 1))
            for run, load in latencies
        ]
        ours_us = median_of([1e6 * run["latency_s"][percentile] for run, _ in latencies])
        theirs_us = median_of([1e6 * getattr(load, f"latency_{percentile}_s") for _, load in latencies])
        detail = f"medians {ours_us:.0f} and {theirs_us:.0f} µs"
        name = f"the load generator against wrk -t1, nginx `proxy_pass`, 4 connections: {percentile} is off by"
        rows.append(at_most(name, off, 10, " %", detail))
    for name in runs:
        for percentile in ("p50", "p99"):
            ratios = [
                run["latency_s"][percentile] / getattr(load, f"latency_{percentile}_s")
                for run, load in zip(runs[name], by_wrk[name], strict=True)
            ]
            # Little's law: what wrk's mean must be if its clock misses nothing.
            mean_s = [CONNECTIONS / load.requests_per_s for load in by_wrk[name]]
            missed = median_of([mean / load.latency_p50_s for mean, load in zip(mean_s, by_wrk[name], strict=True)])
            detail = f"connections over throughput is {missed:.2f} times wrk's p50"
            rows.append(information(f"{name}: {percentile} against wrk's", ratios, TIMES, detail))
    panels = [
        Bars(
            "Requests a second, one process, 64 connections",
            "a second",
            {
                "by gatewayx bench": {name: median_of([run["rps"] for run in found]) for name, found in runs.items()},
                "by wrk -t1": {
                    name: median_of([load.requests_per_s for load in loads]) for name, loads in by_wrk.items()
                },
            },
        ),
        Bars(
            "Processor time of the target",
            "microseconds a request",
            {
                "user and kernel": {
                    name: median_of([1e6 * run["server"]["cpu_s"] / run["requests"] for run in found])
                    for name, found in runs.items()
                }
            },
        ),
    ]
    wrk_raw = {name: [vars(load) for load in loads] for name, loads in by_wrk.items()}
    return Found(rows, panels, {"runs": runs, "wrk": wrk_raw})


if __name__ == "__main__":
    main(
        "gateway_alone",
        "The gateway alone beside nginx, and the load generator beside wrk",
        __doc__ or "",
        {"wrk": "wrk", "nginx": "nginx-light", "cc": "gcc"},
        measure,
    )
