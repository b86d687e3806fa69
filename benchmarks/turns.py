"""One target under load once: the turns that comparisons are made of."""

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from clients import ClosingClient, KeepAliveClient

from support import (
    BENCHMARKS,
    HOST,
    AnswerChecker,
    Checked,
    Disturbance,
    Load,
    ProcessSet,
    Watch,
    median_of,
    run_command,
    run_tag,
    run_wrk,
    wait_until_quiet,
)

CONNECTIONS = 64


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
    connections: int = CONNECTIONS
    queued_jobs: int | None = None
    """Background jobs the job server had after the turn; each answered request must be among them."""

    def cpu_per_request_s(self) -> float:
        """Of the target's processes; what follows a comma in its name says only what was asked of it."""
        return self.cpu_s[self.target.partition(",")[0]] / self.load.requests

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
            if not answered <= self.queued_jobs <= answered + self.connections + 1:
                found.append(f"{self.target}, round {self.round}: {answered} answered, {self.queued_jobs} jobs queued")
        return found


def describe(turn: Turn) -> str:
    load = turn.load
    cpu_s = ", ".join(f"{name} {time_s / load.duration_s:.2f}" for name, time_s in turn.cpu_s.items() if time_s > 0.01)
    return (
        f"{turn.target} round {turn.round}, {turn.connections} connections: {load.requests_per_s:,.0f}/s, "
        f"p50 {1e3 * load.latency_p50_s:.2f} ms, p99 {1e3 * load.latency_p99_s:.2f} ms, errors {load.error_count}; "
        f"cores: {cpu_s}; others {turn.disturbance.share:.0%}"
    )


def undisturbed(
    processes: ProcessSet,
    max_disturbance: float,
    repeats: int,
    measure: Callable[[], Turn],
    quiet_timeout_s: float = 120.0,
) -> tuple[Turn, list[Turn]]:
    """Repeats a turn that others disturbed, whatever its outcome; returns the one that counts and those that do not."""
    discarded: list[Turn] = []
    while True:
        wait_until_quiet(processes, max_disturbance, quiet_timeout_s)
        turn = measure()
        print(describe(turn), file=sys.stderr, flush=True)
        if turn.disturbance.share <= max_disturbance or len(discarded) == repeats:
            return turn, discarded
        discarded.append(turn)


def wrk_turn(
    processes: ProcessSet,
    target: str,
    round_number: int,
    port: int,
    function: str,
    arguments: list[str],
    connections: int,
    duration_s: float,
    check: bool,
) -> Turn:
    """wrk with unique_post.lua, whose arguments follow the run tag; `check` compares answers beside it."""
    checker = AnswerChecker(port, f"/{function}", arguments[0] == "background") if check else None
    watch = Watch(processes)
    script, url = BENCHMARKS / "unique_post.lua", f"http://{HOST}:{port}/{function}"
    with checker.running() if checker else nullcontext():
        load = run_wrk(url, script, [run_tag(), *arguments], connections, duration_s)
    cpu_s, disturbance = watch.stop()
    return Turn(target, round_number, load, cpu_s, disturbance, checker.checked if checker else None, connections)


def native_turn(
    processes: ProcessSet, round_number: int, server_port: int, function: str, in_flight: int, duration_s: float
) -> Turn:
    """native_client.py, which asks the job server itself; more than one job in flight share two connections."""
    watch = Watch(processes)
    command = [sys.executable, str(BENCHMARKS / "native_client.py"), "--server", f"{HOST}:{server_port}"]
    command += ["--function", function, "--in-flight", str(in_flight), "--connections", str(min(in_flight, 2))]
    command += ["--duration", str(duration_s), "--run-tag", run_tag()[:7]]
    outcome = json.loads(run_command(command, timeout_s=duration_s + 30).stdout)
    cpu_s, disturbance = watch.stop()
    load = Load(
        duration_s=outcome["duration_s"],
        requests=outcome["jobs"],
        requests_per_s=outcome["jobs_per_s"],
        latency_p50_s=outcome["latency_p50_s"],
        latency_p99_s=outcome["latency_p99_s"],
        latency_max_s=outcome["latency_max_s"],
        errors={"wrong": outcome["wrong_results"]},
    )
    return Turn("native", round_number, load, cpu_s, disturbance, connections=in_flight)


def sequential_turn(
    processes: ProcessSet,
    target: str,
    round_number: int,
    connect: Callable[[], KeepAliveClient | ClosingClient],
    duration_s: float,
) -> Turn:
    """One request at a time; the time of one includes its connection where the client makes one for it."""
    times_s: list[float] = []
    wrong = 0
    start = run_tag()
    client = connect()
    watch = Watch(processes)
    began_s = time.perf_counter()
    while (elapsed_s := time.perf_counter() - began_s) < duration_s:
        payload = f"{start}{len(times_s):012d}".encode()
        time_s, answer = client.post(payload)
        times_s.append(time_s)
        wrong += answer != payload
    cpu_s, disturbance = watch.stop()
    times_s.sort()
    load = Load(
        duration_s=elapsed_s,
        requests=len(times_s),
        requests_per_s=len(times_s) / elapsed_s,
        latency_p50_s=median_of(times_s),
        latency_p99_s=times_s[len(times_s) * 99 // 100],
        latency_max_s=times_s[-1],
        errors={"wrong": wrong},
    )
    return Turn(target, round_number, load, cpu_s, disturbance, connections=1)


def values_of(turns: list[Turn], target: str, value: Callable[[Turn], float]) -> list[float]:
    """One value a round, in the order of the rounds."""
    return [value(turn) for turn in turns if turn.target == target]


def against(turns: list[Turn], target: str, other: str, value: Callable[[Turn], float]) -> list[float]:
    """Each round's ratio: turns of one round are neighbours in time, and the machine's speed drifts."""
    pairs = zip(values_of(turns, target, value), values_of(turns, other, value), strict=True)
    return [numerator / denominator for numerator, denominator in pairs]


def rates(turns: list[Turn], target: str, other: str) -> str:
    """Median requests a second of both, in words."""
    medians = {name: median_of(values_of(turns, name, requests_per_s)) for name in (target, other)}
    return ", ".join(f"{name} {median:,.0f}/s" for name, median in medians.items())


def latencies(turns: list[Turn], target: str, other: str) -> str:
    """Median p99 of both, in words."""
    medians = {name: median_of(values_of(turns, name, latency_p99_s)) for name in (target, other)}
    return ", ".join(f"{name} {1e3 * median:.2f} ms" for name, median in medians.items())


def processor_times(turns: list[Turn], target: str, other: str) -> str:
    """Median processor time a request of both, in words."""
    medians = {name: 1e6 * median_of(values_of(turns, name, Turn.cpu_per_request_s)) for name in (target, other)}
    return ", ".join(f"{name} {median:.2f} µs" for name, median in medians.items())


def requests_per_s(turn: Turn) -> float:
    return turn.load.requests_per_s


def latency_p50_s(turn: Turn) -> float:
    return turn.load.latency_p50_s


def latency_p99_s(turn: Turn) -> float:
    return turn.load.latency_p99_s


def problems_of(turns: list[Turn], target: str | None = None) -> list[str]:
    return [problem for turn in turns if target in (None, turn.target) for problem in turn.problems()]
