"""Where the gateway's time goes: the gateway alone, in front of a job server that answers at once.

    python benchmarks/profile_gateway.py time          [--background] [--duration 5]
    python benchmarks/profile_gateway.py system-calls  [--background] [--duration 5]
    python benchmarks/profile_gateway.py instructions  [--background] [--duration 5]

`time` samples with perf: processor time a request by component, the kernel's by system call. `system-calls` counts
with strace. `instructions` counts user-space instructions a request with valgrind's callgrind: exact enough to
compare two builds, blind to the kernel. The load is 64 connections of wrk with unique 20-byte payloads, as in
plugin_comparison.py. `--gearmand` puts a real gearmand and two libgearman workers behind the gateway: slower answers
arrive a few at a time, so that a request pays for more of each system call.
"""

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from servers import GATEWAY_COMMAND, start_echo_workers, start_gateway, start_gearmand, start_null_job_server
from shapes import SHAPES, SMALL, head_format

from support import (
    BENCHMARKS,
    HOST,
    BenchmarkError,
    Load,
    Process,
    ProcessSet,
    require_programs,
    run_command,
    run_tag,
    run_wrk,
)

CONNECTIONS = 64
WARM_UP_S = 1.0
SAMPLES_PER_S = 1999
SYMBOLS_SHOWN = 12
PERF_FRAME = re.compile(r"\s*[0-9a-f]+ (?P<symbol>.+) \((?P<object>[^)]+)\)$")
STRACE_LINE = re.compile(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(?P<calls>\d+)\s+(?:\d+\s+)?(?P<name>\w+)$")


@dataclass(frozen=True)
class Share:
    """One line of a profile: what a request costs there."""

    name: str
    per_request: float


@dataclass(frozen=True)
class Bench:
    """The gateway in front of the null job server, and the load for it."""

    processes: ProcessSet
    gateway: Process
    port: int
    head: str
    """Of the requests, as shapes.py writes it."""

    def load(self, duration_s: float, connections: int = CONNECTIONS) -> Load:
        arguments = [run_tag(), "head", self.head]
        url = f"http://{HOST}:{self.port}/echo"
        load = run_wrk(url, BENCHMARKS / "unique_post.lua", arguments, connections, duration_s)
        if load.error_count:
            raise BenchmarkError(f"errors under load: {load.errors}")
        if not load.requests:
            raise BenchmarkError("nothing was answered: foreground jobs need workers of their function")
        return load


def start(
    processes: ProcessSet, background: bool, gateway_command: str, with_gearmand: bool, shape: str = SMALL
) -> Bench:
    """The gateway and what it needs, warm."""
    if with_gearmand:
        _, server_port, _ = start_gearmand(processes, "-t 4")
        start_echo_workers(processes, server_port, "echo", 2)
    else:
        _, server_port = start_null_job_server(processes)
    gateway, port = start_gateway(processes, gateway_command, server_port)
    bench = Bench(processes, gateway, port, head_format(shape, background, port))
    bench.load(WARM_UP_S)
    return bench


def component(shared_object: str, symbol: str) -> str:
    """Whose code a user-space sample is in."""
    path = Path(shared_object)
    extension = path.name.split(".", 1)[0]
    if "gatewayx" in path.parts:
        return f"gatewayx {path.parent.name}.{extension}"
    if "uvloop" in path.parts:
        return "libuv" if symbol.startswith(("uv_", "uv__")) else "uvloop"
    if "httptools" in path.parts:
        return "llhttp" if symbol.startswith("llhttp") else "httptools"
    if extension.startswith(("libpython", "python")):
        return "Python"
    if extension in ("libc", "[vdso]", "ld-linux-x86-64", "libpthread"):
        return "C library"
    return extension


def perf_samples(script: str) -> Iterator[list[tuple[str, str]]]:
    """The (symbol, shared object) frames of every sample, the innermost first."""
    frames: list[tuple[str, str]] = []
    for line in script.splitlines():
        if frame := PERF_FRAME.match(line):
            frames.append((frame["symbol"], frame["object"]))
        elif frames:
            yield frames
            frames = []
    if frames:
        yield frames


def system_call_of(frames: list[tuple[str, str]]) -> str:
    """The kernel's entry function of the system call that a kernel sample belongs to."""
    symbols = [symbol for symbol, _ in frames]
    if "do_syscall_64" in symbols and symbols.index("do_syscall_64") > 0:
        entry = symbols[symbols.index("do_syscall_64") - 1]
        return entry.removeprefix("__x64_").removeprefix("k").removeprefix("__").removeprefix("sys_")
    return "entry, exit and interrupts"


def profile_time(bench: Bench, duration_s: float) -> list[Share]:
    """Processor microseconds a request by component, sampled over the middle of a load."""
    data = bench.processes.directory / "perf.data"
    recorder = bench.processes.start(
        "perf",
        ["perf", "record", "-q", "-F", str(SAMPLES_PER_S), "-g", "-p", str(bench.gateway.serving_pid), "-o", str(data)],
    )
    time.sleep(0.5)
    before_s = bench.gateway.cpu_time_s()
    load = bench.load(duration_s)
    used_s = bench.gateway.cpu_time_s() - before_s
    bench.processes.stop(recorder)
    script = run_command(["perf", "script", "-i", str(data), "-F", "ip,sym,dso"], timeout_s=300).stdout
    components: Counter[str] = Counter()
    symbols: Counter[str] = Counter()
    for frames in perf_samples(script):
        symbol, shared_object = frames[0]
        in_kernel = shared_object.startswith(("[kernel", "[guest.kernel"))
        name = f"kernel: {system_call_of(frames)}" if in_kernel else component(shared_object, symbol)
        components[name] += 1
        if not in_kernel:
            symbols[f"{name}: {symbol}"] += 1
    us_per_request = 1e6 * used_s / load.requests
    print(
        f"{load.requests_per_s:,.0f} requests/s, {us_per_request:.2f} µs of processor time a request while sampled, "
        f"{components.total()} samples"
    )
    us_per_sample = us_per_request / components.total()
    print_shares("user-space symbols, µs a request", shares(symbols, us_per_sample)[:SYMBOLS_SHOWN])
    return shares(components, us_per_sample)


def count_system_calls(bench: Bench, load: Callable[[], int]) -> tuple[Counter[str], int]:
    """Calls by name while the load ran, and what it returned: its requests."""
    summary = bench.processes.directory / "strace.txt"
    command = ["strace", "-f", "-c", "-p", str(bench.gateway.serving_pid), "-o", str(summary)]
    tracer = bench.processes.start("strace", command)
    time.sleep(0.5)
    tracer.check_running()
    requests = load()
    bench.processes.stop(tracer)
    lines = map(STRACE_LINE.match, summary.read_text().splitlines())
    return Counter({line["name"]: int(line["calls"]) for line in lines if line and line["name"] != "total"}), requests


def profile_system_calls(bench: Bench, duration_s: float) -> list[Share]:
    """System calls a request; strace slows the gateway down, which lets more work gather in each turn of its loop."""
    calls, requests = count_system_calls(bench, lambda: bench.load(duration_s).requests)
    print(f"{requests / duration_s:,.0f} requests/s under strace")
    return shares(calls, 1 / requests)


def callgrind_command(directory: Path, gateway_command: str) -> str:
    """The gateway under callgrind since its start, where nothing is counted until it is told."""
    output = f"--callgrind-out-file={directory}/callgrind.out.%p"
    # callgrind_control reaches no process that was forked.
    gateway_command = gateway_command.replace("-m gatewayx serve", str(BENCHMARKS / "one_process.py"))
    return f"valgrind --tool=callgrind --instr-atstart=no {output} {gateway_command}"


def count_instructions(bench: Bench, load: Callable[[], int]) -> tuple[Counter[str], Counter[str], int]:
    """User-space instructions by component and by symbol while the load ran, and what it returned: its requests."""
    pid = str(bench.gateway.serving_pid)
    run_command(["callgrind_control", "--instr=on", pid], timeout_s=60)
    requests = load()
    run_command(["callgrind_control", "--instr=off", pid], timeout_s=60)
    run_command(["callgrind_control", "--dump", pid], timeout_s=60)
    dumps = sorted(bench.processes.directory.glob("callgrind.out.*"), key=lambda path: path.stat().st_size)
    components: Counter[str] = Counter()
    symbols: Counter[str] = Counter()
    for shared_object, symbol, instructions in callgrind_costs(dumps[-1].read_text(errors="replace")):
        name = component(shared_object, symbol)
        components[name] += instructions
        symbols[f"{name}: {symbol}"] += instructions
    return components, symbols, requests


def profile_instructions(bench: Bench, duration_s: float) -> list[Share]:
    """User-space instructions a request by component. The gateway runs under callgrind since its start."""
    components, symbols, requests = count_instructions(bench, lambda: bench.load(duration_s).requests)
    print(
        f"{requests / duration_s:,.0f} requests/s under callgrind, "
        f"{components.total() / requests:,.0f} user-space instructions a request"
    )
    print_shares("symbols, instructions a request", shares(symbols, 1 / requests)[: 2 * SYMBOLS_SHOWN])
    return shares(components, 1 / requests)


def callgrind_costs(text: str) -> Iterator[tuple[str, str, int]]:
    """(shared object, function, instructions of its own) of every cost line of a callgrind dump.

    Names are written once and referred to by number; the line after `calls=` is what the callee used, not the caller.
    """
    names: dict[str, dict[str, str]] = {"ob": {}, "fn": {}}
    current = {"ob": "", "fn": ""}
    skip_next = False
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and key in ("ob", "fn", "cob", "cfn"):
            kind = key.removeprefix("c")
            number, _, name = value.partition(" ")
            if name:
                names[kind][number] = name
            if key == kind:
                current[kind] = names[kind].get(number, number)
        elif separator and key == "calls":
            skip_next = True
        elif line[:1] in "0123456789+-*" and line:
            if not skip_next:
                yield current["ob"], current["fn"], int(line.split()[1])
            skip_next = False


def shares(counts: Counter[str], factor: float) -> list[Share]:
    return [Share(name, count * factor) for name, count in counts.most_common()]


def print_shares(title: str, lines: list[Share]) -> None:
    print(f"\n{title}")
    for share in lines:
        if share.per_request >= 0.005:
            print(f"  {share.per_request:12,.2f}  {share.name}")


KINDS: dict[str, tuple[Callable[[Bench, float], list[Share]], str, dict[str, str]]] = {
    "time": (profile_time, "µs a request", {"perf": "linux-perf"}),
    "system-calls": (profile_system_calls, "calls a request", {"strace": "strace"}),
    "instructions": (profile_instructions, "instructions a request", {"valgrind": "valgrind"}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--background", action="store_true", help="background jobs; foreground ones otherwise")
    parser.add_argument(
        "--gearmand", action="store_true", help="in front of gearmand and two libgearman workers instead"
    )
    parser.add_argument("--shape", choices=SHAPES, default=SMALL, help="what the requests are like")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of load")
    parser.add_argument("--gateway-command", default=GATEWAY_COMMAND)
    arguments = parser.parse_args()
    profile, unit, programs = KINDS[arguments.kind]
    try:
        require_programs({"wrk": "wrk", **programs})
        with tempfile.TemporaryDirectory(prefix="profile-gateway-") as name, ProcessSet(Path(name)) as processes:
            command = arguments.gateway_command
            if arguments.kind == "instructions":
                command = callgrind_command(Path(name), command)
            bench = start(processes, arguments.background, command, arguments.gearmand, arguments.shape)
            print_shares(f"by component, {unit}", profile(bench, arguments.duration))
    except BenchmarkError as error:
        print(f"profile_gateway: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
