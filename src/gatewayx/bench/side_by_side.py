"""`gatewayx bench plugin` and `demo`: start targets, load them in turns, and tell the verdict."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gatewayx.bench.errors import RunError
from gatewayx.bench.measurement import Measurement, Progress
from gatewayx.bench.plan import FloodSettings, LoadSettings, Target
from gatewayx.bench.result import Run, Verdict
from gatewayx.bench.services import FUNCTION
from gatewayx.bench.units import bytes_text, time_text
from gatewayx.net.ports import accepts, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

HOST = "127.0.0.1"
GATEWAY, PLUGIN = "gatewayx", "plugin"
CONNECTIONS = (1, 16, 64, 256)
PAYLOAD_BYTES = 20
FLOOD_KINDS = ("bad-line", "bad-version", "header-flood", "slow-head")
GOOD_CONNECTIONS = 8
FLOOD_CONNECTIONS = 32
WORKERS = 2
# The default of 991 makes each submit search a chain that grows with the queue of background jobs.
GEARMAND_OPTIONS = ("-t", "4", "--hashtable-buckets", "1000003")
START_TIMEOUT_S = 15.0
PROBE_TIMEOUT_S = 1.0
STOP_TIMEOUT_S = 5.0
# For the workers to empty the queue that a background run has left.
QUEUE_TIMEOUT_S = 120.0
CALM_S = 2.0
# Both figures within this part of each other are called equal.
EQUAL_SHARE = 0.05
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Contestant:
    """A target under test and the process that is sampled for it."""

    name: str
    port: int
    pid: int


class Services:
    """The processes of a comparison, all stopped when the `with` block ends, or when this process does."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._directory = tempfile.TemporaryDirectory(prefix="gatewayx-bench-")
        self._prctl = ctypes.CDLL(None).prctl

    def __enter__(self) -> Services:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._directory.cleanup()

    def start(self, command: Sequence[str], port: int | None = None) -> int:
        """Start a program and wait until it listens on a port; returns its process id. Raises RunError."""
        log = Path(self._directory.name) / f"{len(self._processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._die_with_parent,
            )
        self._processes.append(process)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while port is not None and not accepts(HOST, port, PROBE_TIMEOUT_S):
            if process.poll() is not None:
                words = log.read_text(errors="replace").strip()[-300:]
                raise RunError(f"{Path(command[0]).name} ended with status {process.returncode}: {words!a}")
            if time.monotonic() > deadline_s:
                raise RunError(f"{Path(command[0]).name} does not listen on port {port} after {START_TIMEOUT_S:g} s")
            time.sleep(0.02)
        return process.pid

    def file(self, name: str) -> str:
        """A path in a directory that goes away with the processes."""
        return str(Path(self._directory.name) / name)

    def _die_with_parent(self) -> None:
        self._prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start_gearmand(services: Services) -> tuple[int, Contestant]:
    """A job server with the HTTP plugin: its Gearman port, and the plugin. Raises RunError without gearmand."""
    gearmand = shutil.which("gearmand", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if gearmand is None:
        raise RunError("gearmand is not on PATH (Debian: gearman-job-server); `gatewayx bench demo` needs none")
    port, http_port = _port(), _port()
    files = ["-l", services.file("gearmand.log"), "-P", services.file("gearmand.pid")]
    options = ["-L", HOST, "-p", str(port), "-r", "http", "--http-port", str(http_port), *files, *GEARMAND_OPTIONS]
    pid = services.start([gearmand, *options], http_port)
    return port, Contestant(PLUGIN, http_port, pid)


def start_embedded_job_server(services: Services) -> int:
    """The embedded job server; returns its port."""
    port = _port()
    services.start([sys.executable, "-m", "gatewayx.bench.services", "job-server", f"{HOST}:{port}"], port)
    return port


def start_gateway(services: Services, server_port: int) -> Contestant:
    """gatewayx with its defaults in front of a job server."""
    port = _port()
    command = [
        sys.executable,
        "-m",
        "gatewayx",
        "serve",
        "--listen",
        f"{HOST}:{port}",
        "--server",
        f"{HOST}:{server_port}",
    ]
    return Contestant(GATEWAY, port, services.start(command, port))


def start_workers(services: Services, server_port: int) -> None:
    """The workers that both targets' jobs go to; returns once the job server knows them."""
    for _ in range(WORKERS):
        services.start([sys.executable, "-m", "gatewayx.bench.services", "worker", f"{HOST}:{server_port}"])
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while queue_status(server_port)[2] < WORKERS:
        if time.monotonic() > deadline_s:
            raise RunError(f"the workers are not at the job server after {START_TIMEOUT_S:g} s")
        time.sleep(0.05)


def queue_status(server_port: int) -> tuple[int, int, int]:
    """Jobs in all, jobs running and workers of FUNCTION, by the job server's `status`."""
    told = b""
    try:
        with socket.create_connection((HOST, server_port), timeout=STOP_TIMEOUT_S) as connection:
            connection.sendall(b"status\n")
            while not told.endswith(b".\n") and (piece := connection.recv(65536)):
                told += piece
    except OSError as error:
        raise RunError(f"the job server does not tell its status: {error}") from None
    for line in told.decode(errors="replace").splitlines():
        name, *counts = line.split("\t")
        if name == FUNCTION and len(counts) == 3:
            total, running, workers = map(int, counts)
            return total, running, workers
    return 0, 0, 0


def _port() -> int:
    try:
        return free_port()
    except OSError as error:
        raise RunError(str(error)) from None


class Comparison:
    """The same loads on every target, one after the other in turns.

    progress: called at the end of each interval of each run.
    """

    def __init__(
        self,
        contestants: Sequence[Contestant],
        server_port: int,
        duration_s: float,
        progress: Callable[[Progress], None],
    ) -> None:
        self.contestants = contestants
        self.runs: list[Run] = []
        self.problem = ""
        """Why it ended before its end, in one line."""
        self._server_port = server_port
        self._duration_s = duration_s
        self._progress = progress
        self._stopped = False
        self._current: Measurement | None = None
        self._turn = 0

    def stop(self) -> None:
        """End early; what has been measured is told."""
        self._stopped = True
        if self._current is not None:
            self._current.stop()

    async def run(self) -> None:
        """Measure everything; `runs` has it. Raises RunError."""
        for background in (False, True):
            for connections in CONNECTIONS:
                await self._in_turns(
                    f"{'background' if background else 'foreground'}, {connections} connections",
                    LoadSettings(
                        connections=connections,
                        duration_s=self._duration_s,
                        body=b"x" * PAYLOAD_BYTES,
                        unique_bodies=True,
                        background=background,
                        check="framing" if background else "echo",
                    ),
                )
        for kind in FLOOD_KINDS:
            load = LoadSettings(
                connections=GOOD_CONNECTIONS, body=b"x" * PAYLOAD_BYTES, unique_bodies=True, check="echo"
            )
            flood = FloodSettings(kind, FLOOD_CONNECTIONS, None, self._duration_s, min(CALM_S, self._duration_s))
            await self._in_turns(f"flood of {kind}", load, flood)

    async def _in_turns(self, name: str, load: LoadSettings, flood: FloodSettings | None = None) -> None:
        self._turn += 1
        start = self._turn % len(self.contestants)
        for contestant in [*self.contestants[start:], *self.contestants[:start]]:
            if self._stopped:
                return
            target = Target.parse(f"http://{HOST}:{contestant.port}/{FUNCTION}", allow_remote=False)
            self._current = Measurement(
                f"{name}, {contestant.name}", target, load, flood=flood, pid=contestant.pid, progress=self._progress
            )
            try:
                self.runs.append(await self._current.run())
                await self._empty_queue()
            except RunError as error:
                if not self.runs:
                    raise
                # The runs that came before the failure are told, and so is where the comparison ended.
                self.problem = f"{name}, {contestant.name}: {error}"
                self._stopped = True

    async def _empty_queue(self) -> None:
        """Wait until the workers have done what is queued: the next target must not pay for it."""
        deadline_s = time.monotonic() + QUEUE_TIMEOUT_S
        while not self._stopped and (await asyncio.to_thread(queue_status, self._server_port))[0]:
            if time.monotonic() > deadline_s:
                raise RunError(f"jobs are still queued after {QUEUE_TIMEOUT_S:g} s")
            await asyncio.sleep(0.1)

    def verdicts(self) -> list[Verdict]:
        """A line for each load and figure."""
        found: list[Verdict] = []
        by_name: dict[str, dict[str, Run]] = {}
        for run in self.runs:
            name, _, contestant = run.name.rpartition(", ")
            by_name.setdefault(name, {})[contestant] = run
        for name, runs in by_name.items():
            flooded = any(run.flood is not None for run in runs.values())
            found += [figure.verdict(name, runs) for figure in (FLOOD_FIGURES if flooded else LOAD_FIGURES)]
        last = {name: run for runs in by_name.values() for name, run in runs.items()}
        return [*found, LAST_FIGURE.verdict("in the end", last)]


def _rps(run: Run) -> float | None:
    return run.rps


def _p99_s(run: Run) -> float | None:
    return run.latency_s.p99 if run.latency_s is not None else None


def _kept_share(run: Run) -> float | None:
    return run.flood.during.rps / run.flood.before.rps if run.flood is not None and run.flood.before.rps else None


def _good_p99_s(run: Run) -> float | None:
    return run.flood.during.p99_s if run.flood is not None else None


def _flooded_per_s(run: Run) -> float | None:
    return run.flood.rate_reached if run.flood is not None else None


def _growth_bytes(run: Run) -> float | None:
    return run.server.memory_peak_bytes - run.server.memory_start_bytes if run.server is not None else None


def _end_bytes(run: Run) -> float | None:
    return run.server.memory_end_bytes if run.server is not None else None


@dataclass(frozen=True)
class Figure:
    """What targets are compared by: how to get it from a run, how to write it, and whether more of it is better."""

    name: str
    of: Callable[[Run], float | None]
    text: Callable[[float], str]
    more_is_better: bool | None

    def verdict(self, load: str, runs: dict[str, Run]) -> Verdict:
        """Of gatewayx's figure and, if there is one, the plugin's. Errors of gatewayx outweigh every figure."""
        figures = {contestant: self.of(run) for contestant, run in runs.items()}
        measured = {contestant: "-" if value is None else self.text(value) for contestant, value in figures.items()}
        ours, theirs = figures.get(GATEWAY), figures.get(PLUGIN)
        ratio = ours / theirs if ours is not None and theirs else None
        told = [self._better(ratio)] if len(runs) > 1 else ["answered rightly"]
        if GATEWAY in runs and runs[GATEWAY].error_count:
            told = [f"gatewayx: {runs[GATEWAY].error_count:,} errors"]
        if PLUGIN in runs and runs[PLUGIN].error_count:
            told.append(f"plugin: {runs[PLUGIN].error_count:,} errors")
        return Verdict(f"{load}: {self.name}", measured, ratio, "; ".join(filter(None, told)))

    def _better(self, ratio: float | None) -> str:
        if ratio is None or self.more_is_better is None:
            return ""
        if abs(ratio - 1) <= EQUAL_SHARE:
            return "equal"
        return "gatewayx better" if (ratio > 1) == self.more_is_better else "gatewayx worse"


def _rate_text(value: float) -> str:
    return f"{value:,.0f}/s"


LOAD_FIGURES = (
    Figure("throughput", _rps, _rate_text, more_is_better=True),
    Figure("p99", _p99_s, time_text, more_is_better=False),
)
FLOOD_FIGURES = (
    Figure("good traffic kept", _kept_share, "{:.0%}".format, more_is_better=True),
    Figure("p99 of good traffic", _good_p99_s, time_text, more_is_better=False),
    Figure("its connections", _flooded_per_s, _rate_text, more_is_better=None),
    Figure("memory grown by", _growth_bytes, bytes_text, more_is_better=None),
)
LAST_FIGURE = Figure("private memory", _end_bytes, bytes_text, more_is_better=False)
