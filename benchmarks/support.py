"""What the comparisons share: processes that die with the script, samples of /proc, load, and reports.

Nothing here knows what is compared. Times are seconds, sizes are bytes.
"""

import contextlib
import http.client
import importlib.metadata
import json
import os
import platform
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from gatewayx.bench.measurement import machine as machine_description
from gatewayx.net.open_files import raise_open_files

BENCHMARKS = Path(__file__).resolve().parent
REPOSITORY = BENCHMARKS.parent
HOST = "127.0.0.1"
KIB = 1024
MIB = 1024 * KIB
TIMES = "\N{MULTIPLICATION SIGN}"
# Each submit searches one chain of gearmand's table of uniques. With the default of 991 chains the time that this takes
# grows with the queue, and a load of background jobs would measure that.
GEARMAND_TABLE = ("--hashtable-buckets", "1000003")
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
DIE_WITH_SCRIPT = ("setpriv", "--pdeathsig", "TERM")
"""Runs the rest of the command line so that the kernel ends it when the script ends, however that happens."""


class BenchmarkError(Exception):
    """The measurement cannot be made or would be wrong; the message says why."""


def require_programs(programs: Mapping[str, str]) -> None:
    """Stops with one message when a program is missing. `programs` maps a program to the Debian package it is in."""
    missing = [f"{program} (apt-get install {package})" for program, package in programs.items() if not which(program)]
    if missing:
        raise BenchmarkError("not installed: " + ", ".join(missing))


def which(program: str) -> str | None:
    """The path of a program; daemons live in sbin, which an ordinary user's PATH leaves out."""
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")


def raise_open_file_limit(needed: int) -> None:
    """Makes room for `needed` descriptors in this process and in those it starts."""
    possible = raise_open_files(needed)
    if possible < needed:
        raise BenchmarkError(f"needs {needed} open files, the hard limit is {possible}: use fewer connections")


def run_tag() -> str:
    """Eight characters that no other load uses: the start of its payloads."""
    return secrets.token_hex(4)


@dataclass(frozen=True)
class Memory:
    """The memory of a process and its descendants."""

    resident_bytes: int
    private_bytes: int


class Process:
    """A started program: stopped with the script whatever ends it, and sampled through /proc.

    Samples cover the program and its descendants (nginx's worker, the gateway's processes).
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None):
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [*DIE_WITH_SCRIPT, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def serving_pid(self) -> int:
        """The process that serves: the only worker process, or the program itself if it has none."""
        return self.members()[-1]

    def members(self) -> list[int]:
        """The ids of the process and its descendants."""
        found = [self.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += [int(child) for child in children.read_text().split()]
        return found

    def cpu_time_s(self) -> float:
        """Processor time used so far, user and kernel, at the scheduler's nanosecond precision."""
        nanoseconds = 0
        for pid in self.members():
            for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    nanoseconds += int(schedstat.read_text().split()[0])
        return nanoseconds / 1e9

    def memory(self) -> Memory:
        """Resident memory, and the part that nothing else shares (Private_Clean and Private_Dirty)."""
        sizes_kib = {"Rss": 0, "Private_Clean": 0, "Private_Dirty": 0}
        for pid in self.members():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                key, _, value = line.partition(":")
                if key in sizes_kib:
                    sizes_kib[key] += int(value.split()[0])
        private_kib = sizes_kib["Private_Clean"] + sizes_kib["Private_Dirty"]
        return Memory(resident_bytes=sizes_kib["Rss"] * 1024, private_bytes=private_kib * 1024)

    def wait_until_listening(self, *ports: int) -> None:
        """Returns once this very process listens on every port: somebody else's listener would be measured instead."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            self.check_running()
            if all(self._listens_on(port) for port in ports):
                return
            time.sleep(0.02)
        raise BenchmarkError(f"{self.name} does not listen on {ports} after {READY_TIMEOUT_S} s: {self._last_words()}")

    def check_running(self) -> None:
        if self._popen.poll() is not None:
            raise BenchmarkError(f"{self.name} ended with status {self._popen.returncode}: {self._last_words()}")

    def kill(self) -> None:
        """Ends the process as a crash would."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """Ends the process and its session, politely first."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            if self._popen.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal_number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _listens_on(self, port: int) -> bool:
        inodes = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with contextlib.suppress(OSError):
                for line in Path(table).read_text().splitlines()[1:]:
                    fields = line.split()
                    listening = fields[3] == "0A"
                    if listening and int(fields[1].rpartition(":")[2], 16) == port:
                        inodes.add(f"socket:[{fields[9]}]")
        for pid in self.members():
            for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in inodes:
                        return True
        return False

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace").strip()[-500:] or "nothing in its log"


class ProcessSet:
    """The processes of one measurement, all stopped when the `with` block ends, logs in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[Process] = []

    def __enter__(self) -> "ProcessSet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in list(reversed(self._processes)):
            self.stop(process)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        log = self.directory / f"{name}-{len(list(self.directory.glob('*.log')))}.log"
        process = Process(name, command, log, environment)
        self._processes.append(process)
        return process

    def stop(self, process: Process) -> None:
        process.stop()
        self._processes.remove(process)

    def cpu_times_s(self) -> dict[str, float]:
        """Processor time so far by process name."""
        times_s: dict[str, float] = {}
        for process in self._processes:
            times_s[process.name] = times_s.get(process.name, 0.0) + process.cpu_time_s()
        return times_s


@dataclass(frozen=True)
class Disturbance:
    """How much of the machine others took while something was measured, as shares of all its processor time."""

    stolen_share: float
    """Taken by the hypervisor for other machines."""
    foreign_share: float
    """Used by processes of this machine that do not belong to the measurement."""

    @property
    def share(self) -> float:
        return self.stolen_share + self.foreign_share


class Watch:
    """Samples processor time around a measurement: who used how much, and how much was not ours."""

    def __init__(self, processes: ProcessSet) -> None:
        self._processes = processes
        self._machine = _machine_times_s()
        self._ours = self._our_times_s()

    def stop(self) -> tuple[dict[str, float], Disturbance]:
        """Processor seconds by process name since the start (ended children are `load`), and the disturbance."""
        machine = _machine_times_s()
        ours = self._our_times_s()
        used_s = {name: time_s - self._ours.get(name, 0.0) for name, time_s in ours.items()}
        busy_s, stolen_s, total_s = (after - before for before, after in zip(self._machine, machine, strict=True))
        foreign_s = max(0.0, busy_s - sum(used_s.values()))
        return used_s, Disturbance(stolen_share=stolen_s / total_s, foreign_share=foreign_s / total_s)

    def _our_times_s(self) -> dict[str, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = resource.getrusage(resource.RUSAGE_SELF)
        return {
            **self._processes.cpu_times_s(),
            "load": children.ru_utime + children.ru_stime,
            "script": own.ru_utime + own.ru_stime,
        }


def wait_until_quiet(processes: ProcessSet, max_disturbance: float, timeout_s: float = 120.0) -> None:
    """Returns once others left the machine alone for a second, or after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        watch = Watch(processes)
        time.sleep(1.0)
        if watch.stop()[1].share <= max_disturbance:
            return


def _machine_times_s() -> tuple[float, float, float]:
    """Busy, stolen and total processor seconds of the machine since it started."""
    ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, idle, waiting, interrupt, soft_interrupt, stolen = ticks
    busy = user + nice + system + interrupt + soft_interrupt
    seconds_per_tick = 1 / os.sysconf("SC_CLK_TCK")
    return busy * seconds_per_tick, stolen * seconds_per_tick, (busy + stolen + idle + waiting) * seconds_per_tick


@dataclass(frozen=True)
class Load:
    """What one run of a load generator saw."""

    duration_s: float
    requests: int
    requests_per_s: float
    latency_p50_s: float
    latency_p99_s: float
    latency_max_s: float
    errors: dict[str, int]
    """By kind: connect, read, write, status (not 2xx or 3xx), timeout, or wrong for an answer that is not right."""

    @property
    def error_count(self) -> int:
        return sum(self.errors.values())


def run_wrk(
    url: str, script: Path, script_arguments: Sequence[str], connections: int, duration_s: float, threads: int = 1
) -> Load:
    """One run of wrk. The script writes what `done` was told as JSON on stderr."""
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(duration_s))}s"]
    command += ["-s", str(script), url, "--", *script_arguments]
    report = json.loads(run_command(command, timeout_s=duration_s + 30).stderr)
    return Load(
        duration_s=report["duration_s"],
        requests=report["requests"],
        requests_per_s=report["requests"] / report["duration_s"],
        latency_p50_s=report["latency_p50_s"],
        latency_p99_s=report["latency_p99_s"],
        latency_max_s=report["latency_max_s"],
        errors=report["errors"],
    )


def run_command(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; it dies with the script."""
    completed = subprocess.run(
        [*DIE_WITH_SCRIPT, *command], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if completed.returncode != 0:
        raise BenchmarkError(f"{command[0]} ended with status {completed.returncode}: {completed.stderr.strip()}")
    return completed


@dataclass
class Checked:
    """Answers that were compared with what they had to be."""

    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    """The first wrong ones, in words."""
    wrong_count: int = 0


class AnswerChecker:
    """Sends a request of its own every `interval_s` seconds while a load runs and compares the answer.

    A load generator counts answers; it does not read them. One connection is kept while the server keeps it.
    """

    def __init__(self, port: int, path: str, background: bool, interval_s: float = 0.05) -> None:
        self.checked = Checked()
        self._address = (HOST, port)
        self._path = path
        self._background = background
        self._interval_s = interval_s
        self._payload_start = run_tag()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Checked]:
        self._thread.start()
        try:
            yield self.checked
        finally:
            self._ended.set()
            self._thread.join(READY_TIMEOUT_S)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=READY_TIMEOUT_S)
        headers = {"X-Gearman-Background": "true"} if self._background else {}
        while not self._ended.wait(self._interval_s):
            payload = f"{self._payload_start}{self.checked.answers:012d}".encode()
            expected = (200, b"" if self._background else payload)
            try:
                connection.request("POST", self._path, payload, headers)
                response = connection.getresponse()
                answer = (response.status, response.read())
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._count_wrong(f"{payload!r}: {error!r}")
                continue
            self.checked.answers += 1
            if answer != expected:
                self._count_wrong(f"{payload!r}: {answer!r}")
        connection.close()

    def _count_wrong(self, description: str) -> None:
        self.checked.wrong_count += 1
        if len(self.checked.wrong) < 10:
            self.checked.wrong.append(description)


@dataclass(frozen=True)
class FunctionStatus:
    """A line of the job server's `status`."""

    jobs: int
    running: int
    workers: int


def function_status(port: int, function: str) -> FunctionStatus:
    """Asks the job server's text protocol how many jobs a function has, queued and running."""
    with socket.create_connection((HOST, port), timeout=READY_TIMEOUT_S) as connection:
        connection.sendall(b"status\n")
        answer = b""
        while not answer.endswith(b".\n"):
            received = connection.recv(65536)
            if not received:
                raise BenchmarkError("the job server closed the connection instead of answering status")
            answer += received
    for line in answer.decode().splitlines():
        name, *counts = line.split("\t")
        if name == function:
            return FunctionStatus(*(int(count) for count in counts))
    return FunctionStatus(0, 0, 0)


def wait_until_drained(port: int, function: str, timeout_s: float = 180.0) -> None:
    """Returns once no job of the function is queued or running."""
    deadline_s = time.monotonic() + timeout_s
    while jobs := function_status(port, function).jobs:
        if time.monotonic() > deadline_s:
            raise BenchmarkError(f"{jobs} jobs of {function} are left after {timeout_s} s")
        time.sleep(0.1)


def wait_for_workers(port: int, function: str, count: int) -> None:
    """Returns once `count` workers offer the function."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while function_status(port, function).workers < count:
        if time.monotonic() > deadline_s:
            raise BenchmarkError(f"fewer than {count} workers offer {function} after {READY_TIMEOUT_S} s")
        time.sleep(0.02)


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, against which bar."""

    name: str
    measured: str
    bar: str
    passed: bool | None
    """None when there is no bar, or when it was not measured."""
    detail: str

    @property
    def verdict(self) -> str:
        return {True: "pass", False: "MISS", None: ""}[self.passed]


def at_least(name: str, rounds: Sequence[float], bar: float, unit: str, detail: str, valid: bool = True) -> Row:
    """A row whose median must reach the bar; `valid` is whether the answers behind it were right."""
    passed = valid and median_of(rounds) >= bar
    return Row(name, _median_text(rounds, unit), f"≥ {bar:g}{unit}", passed, _rounds_text(rounds, detail))


def at_most(name: str, rounds: Sequence[float], bar: float, unit: str, detail: str, valid: bool = True) -> Row:
    """A row whose median must not exceed the bar; `valid` is whether the answers behind it were right."""
    passed = valid and median_of(rounds) <= bar
    return Row(name, _median_text(rounds, unit), f"≤ {bar:g}{unit}", passed, _rounds_text(rounds, detail))


def information(name: str, rounds: Sequence[float], unit: str, detail: str) -> Row:
    """A row without a bar."""
    return Row(name, _median_text(rounds, unit), "", None, _rounds_text(rounds, detail))


def _median_text(rounds: Sequence[float], unit: str) -> str:
    return f"{_number_text(median_of(rounds))}{unit}"


def _number_text(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def _rounds_text(rounds: Sequence[float], detail: str) -> str:
    spread = f"{_number_text(min(rounds))} to {_number_text(max(rounds))}" if len(rounds) > 1 else ""
    return "; ".join(filter(None, [spread, detail]))


def text_table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    cells = [("", "median", "bar", "")] + [(row.name, row.measured, row.bar, row.verdict) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = []
    for line, detail in zip(cells, ["", *(row.detail for row in rows)], strict=True):
        aligned = [line[0].ljust(widths[0]), line[1].rjust(widths[1]), line[2].rjust(widths[2]), line[3].ljust(4)]
        lines.append(("  ".join(aligned) + "  " + detail).rstrip())
    return "\n".join(lines)


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        + ["| " + " | ".join(line) + " |" for line in lines]
    )


def measured_rows_markdown(rows: Sequence[Row]) -> str:
    return markdown_table(
        ("", "median", "bar", "", "lowest to highest round; medians"),
        [(row.name, row.measured, row.bar, row.verdict, row.detail) for row in rows],
    )


def median_of(values: Sequence[float]) -> float:
    if not values:
        raise BenchmarkError("nothing was measured")
    return float(median(values))


def in_turns(turns: Sequence[Callable[[], None]], round_number: int) -> None:
    """Runs every turn once, starting one further each round: no one is always first."""
    start = round_number % len(turns)
    for turn in [*turns[start:], *turns[:start]]:
        turn()


def write_report(
    directory: Path,
    name: str,
    title: str,
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    raw: Any,
    *,
    picture: str = "",
    meaning: str = "",
) -> None:
    """Writes NAME.json and NAME.md: the rows, with where and when they were measured. `raw` goes into the JSON only."""
    machine: dict[str, Any] = machine_description()
    versions = package_versions("uvloop", "httptools", "gatewayx")
    if which("gearmand"):
        versions["gearmand"] = f"{program_version('gearmand', '-V')} with `{' '.join(GEARMAND_TABLE)}`"
    versions |= {program: program_version(program, "-v") for program in ("nginx", "wrk") if which(program)}
    measured = {
        "title": title,
        "meaning": meaning,
        "picture": picture,
        "date": now_text(),
        "revision": source_revision(),
        "machine": machine,
        "versions": versions,
        "settings": dict(settings),
        "rows": [asdict(row) for row in rows],
        "raw": raw,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(measured, indent=1) + "\n")
    told = ", ".join(f"{program} {version}" for program, version in versions.items())
    text = (
        f"# {title}\n\n"
        f"Measured {measured['date']} at {measured['revision']}, {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_bytes'] / 2**30:.1f} GiB, Linux {machine['kernel']}, {told}.\n\n"
    )
    if meaning:
        text += f"{meaning}\n\n"
    if picture:
        text += f"![{title}]({picture})\n\n"
    (directory / f"{name}.md").write_text(f"{text}{measured_rows_markdown(rows)}\n")


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of installed Python packages."""
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def program_version(program: str, option: str) -> str:
    """The version number a program tells, on whichever stream."""
    command = [which(program) or program, option]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=READY_TIMEOUT_S, check=False)
    version = re.search(r"\d+(?:\.\d+)+\S*", completed.stdout + completed.stderr)
    return version[0] if version else "unknown"


def source_revision(clone: Path = REPOSITORY) -> str:
    """The commit of the measured source, and whether files under src/ differ from it."""
    git = ["git", "-C", str(clone)]
    try:
        commit = run_command([*git, "rev-parse", "--short=10", "HEAD"], timeout_s=READY_TIMEOUT_S).stdout.strip()
        changes = run_command([*git, "status", "--porcelain", "--", "src"], timeout_s=READY_TIMEOUT_S).stdout.strip()
    except BenchmarkError:
        return "unknown revision"
    return f"{commit} with changes" if changes else commit


def now_text() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
