"""The gateway alone beside nginx, and the load generator beside wrk.

The gateway stands in front of a job server that answers every submit at once (null_job_server.c), nginx answers
`return 200` itself, or passes requests to another nginx that does (`proxy_pass`, kept connections). One process each,
64 connections, POST with 20 unique bytes. Each is loaded by `gatewayx bench` and by wrk with one thread, in turns.
When wrk itself is the limit it counts latency only from one turn of its loop after the last answer, so that its p50 is
less than connections over throughput allow. So latencies are compared with 4 connections, where neither is.

Processor time a request, user and kernel, is compared with that of nginx `return 200` under the same requests by wrk,
in turns with 8, 64 and 256 connections; with functions and headers that never repeat; and with the
twelve headers of a browser. A ratio is the median of the rounds' own ratios.

    python benchmarks/gateway_alone.py [--rounds 7] [--duration 2] [--output benchmarks/results]
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

from claims import (
    FUNCTION,
    MAX_ATTEMPTS,
    MAX_DISTURBANCE,
    QUIET_TIMEOUT_S,
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
from shapes import BROWSER, NEVER_REPEATING, SMALL, head_format
from turns import Turn, against, processor_times, rates, undisturbed, wrk_turn

from support import (
    BENCHMARKS,
    HOST,
    TIMES,
    BenchmarkError,
    Load,
    Process,
    ProcessSet,
    Row,
    at_least,
    at_most,
    in_turns,
    information,
    median_of,
    run_tag,
    run_wrk,
)

CONNECTIONS = 64
# Few enough that neither load generator is the limit.
LATENCY_CONNECTIONS = 4
KINDS = ("foreground", "background")


@dataclass(frozen=True)
class Case:
    """Requests that gateway and nginx get in turns."""

    shape: str
    connections: int
    foreground_bar: float | None = None
    background_bar: float | None = None

    def bars(self) -> Iterator[tuple[str, float | None]]:
        """The kinds of jobs, each with its bar."""
        yield from zip(KINDS, (self.foreground_bar, self.background_bar), strict=True)


CASES = (
    Case(SMALL, 8),
    Case(SMALL, 64, foreground_bar=1.2, background_bar=1.2),
    Case(SMALL, 256, background_bar=1.1),
    Case(NEVER_REPEATING, 64),
    Case(BROWSER, 64),
)


def processor_time_turns(
    processes: ProcessSet, options: Options, ports: dict[str, int], case: Case, number: int, kept: list[Turn]
) -> None:
    """One round of a case: each kind by gateway and nginx, what nginx answers having nothing to do with jobs."""

    def turn(target: str, port: int, kind: str) -> None:
        arguments = ["head", head_format(case.shape, kind == "background", port)]
        measure = partial(
            wrk_turn,
            processes,
            target,
            number,
            port,
            FUNCTION,
            arguments,
            case.connections,
            options.duration_s,
            check=False,
        )
        counts, _ = undisturbed(processes, MAX_DISTURBANCE, MAX_ATTEMPTS - 1, measure, QUIET_TIMEOUT_S)
        if problems := counts.problems():
            raise BenchmarkError(problems[0])
        kept.append(counts)

    turns = [partial(turn, f"gateway, {kind}", ports["gateway"], kind) for kind in KINDS]
    in_turns([*turns, partial(turn, "nginx", ports["nginx"], "background")], number)


def processor_time_rows(case: Case, turns: list[Turn]) -> Iterator[Row]:
    """A ratio for each kind of job."""
    shape = "" if case.shape == SMALL else f"{case.shape} requests, "
    for kind, bar in case.bars():
        target = f"gateway, {kind}"
        name = f"{kind}, {shape}{case.connections} connections: processor time against nginx `return 200`"
        ratios = against(turns, target, "nginx", Turn.cpu_per_request_s)
        detail = f"{processor_times(turns, target, 'nginx')}; {rates(turns, target, 'nginx')}"
        if bar is None:
            yield information(name, ratios, TIMES, detail)
        else:
            yield at_most(name, ratios, bar, TIMES, detail)


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
    by_case: dict[Case, list[Turn]] = {case: [] for case in CASES}
    ports = {"gateway": gateway_port, "nginx": nginx_port}
    for number in range(options.rounds):
        for case, kept in by_case.items():
            processor_time_turns(processes, options, ports, case, number, kept)
    latencies = compare_latencies(processes, options, proxy_port, proxy.pid)
    rows: list[Row] = []
    for name, found in runs.items():
        cpu_us = [1e6 * run["server"]["cpu_s"] / run["requests"] for run in found]
        p99 = median_of([p99_ms(run) for run in found])
        detail = f"processor time {median_of(cpu_us):.1f} µs a request, p99 {p99:.2f} ms"
        detail += remarks(found)
        rows.append(information(name, [run["rps"] for run in found], "/s", detail))
    for case, turns in by_case.items():
        rows += processor_time_rows(case, turns)
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
    turns_raw = [{"case": asdict(case), "turns": [asdict(turn) for turn in turns]} for case, turns in by_case.items()]
    return Found(rows, panels, {"runs": runs, "wrk": wrk_raw, "processor_time": turns_raw})


if __name__ == "__main__":
    main(
        "gateway_alone",
        "The gateway alone beside nginx, and the load generator beside wrk",
        __doc__ or "",
        {"wrk": "wrk", "nginx": "nginx-light", "cc": "gcc"},
        measure,
    )
