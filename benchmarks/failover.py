"""A job server dies under load and comes back: gatewayx beside libgearman's own client.

    python benchmarks/failover.py [--rounds 3] [--connections 64] [--output benchmarks/results] [--strict]

Two gearmands with echo workers; a gateway in front of both, or libgearman clients that know both. Under load the job
server that does the most is killed with SIGKILL, and started again later. Requests a second and failures over time go
into a picture, for which matplotlib is needed: pip install --group bench. What the rows mean is in
benchmarks/README.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from servers import compile_program, start_gateway, start_plain_gearmand, start_respawning_echo_workers

from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    HOST,
    BenchmarkError,
    ProcessSet,
    Row,
    at_most,
    information,
    require_programs,
    text_table,
    wait_for_workers,
    write_report,
)

FUNCTION = "echo"
WORKERS_EACH = 2
BIN_S = 0.1
KILL_AT_S = 6.0
RESTART_AT_S = 12.0
SECONDS = 32.0
SUBJECTS = ("gatewayx", "libgearman")


@dataclass
class Turn:
    """One kill and restart under load; lists are by BIN_S since the load began."""

    good: list[int]
    failed: list[int]
    killed_at_s: float
    restarted_at_s: float
    in_flight: int
    """Requests under way at the kill, at most: one a connection."""
    failures: dict[str, int]
    first_share: float
    """What the killed job server did of all the work before the kill, by its processor time."""
    shares: list[float]
    """The same in each second from the restart on."""

    @property
    def failures_after_kill(self) -> int:
        return sum(self.failed)

    @property
    def last_failure_after_s(self) -> float:
        """From the kill to the end of the last bin with a failure; 0 without any."""
        last = max((number for number, count in enumerate(self.failed) if count), default=None)
        return 0.0 if last is None else max(0.0, (last + 1) * BIN_S - self.killed_at_s)

    @property
    def share_after_s(self) -> float:
        """From the restart until the job server has four fifths of its share in a second; infinite if never."""
        for number, share in enumerate(self.shares):
            if share >= 0.8 * self.first_share:
                return number + 1.0
        return float("inf")


class Scene:
    """Both job servers, their workers and the gateway."""

    def __init__(self, processes: ProcessSet, connections: int) -> None:
        self.connections = connections
        self._processes = processes
        self._ports = [free_port(), free_port()]
        self._job_servers = [start_plain_gearmand(processes, port) for port in self._ports]
        for port in self._ports:
            start_respawning_echo_workers(processes, port, FUNCTION, WORKERS_EACH)
        self._client = compile_program(processes, "failover_client.c", "-lgearman", "-lpthread")
        servers = " ".join(f"--server {HOST}:{port}" for port in self._ports)
        command = "{python} -m gatewayx serve --listen {listen} " + servers
        self._gateway, self._gateway_port = start_gateway(processes, command, self._ports[0])

    def turn(self, subject: str) -> Turn:
        """Load with one kill and restart."""
        for port in self._ports:
            wait_for_workers(port, FUNCTION, WORKERS_EACH)
        # The gateway reads this every two seconds.
        time.sleep(3)
        began_s = time.monotonic()
        load = subprocess.Popen(self._command(subject), stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        before = [server.cpu_time_s() for server in self._job_servers]
        time.sleep(began_s + KILL_AT_S - time.monotonic())
        work = [server.cpu_time_s() - time_s for server, time_s in zip(self._job_servers, before, strict=True)]
        victim = work.index(max(work))
        killed_s = time.monotonic()
        self._job_servers[victim].kill()
        time.sleep(began_s + RESTART_AT_S - time.monotonic())
        self._processes.stop(self._job_servers[victim])
        self._job_servers[victim] = start_plain_gearmand(self._processes, self._ports[victim])
        restarted_s = time.monotonic()
        shares = self._shares(victim, began_s + SECONDS - 1)
        output, _ = load.communicate(timeout=SECONDS + 60)
        if load.returncode:
            raise BenchmarkError(f"the load of {subject} ended with status {load.returncode}")
        found = json.loads(output)
        if not sum(found["good"]):
            raise BenchmarkError(f"{subject} has served nothing at all")
        return Turn(
            good=found["good"],
            failed=found["failed"],
            killed_at_s=killed_s - found["began_s"],
            restarted_at_s=restarted_s - found["began_s"],
            in_flight=self.connections,
            failures=found.get("failures", {}),
            first_share=work[victim] / sum(work),
            shares=shares,
        )

    def _shares(self, victim: int, until_s: float) -> list[float]:
        shares = []
        before = [server.cpu_time_s() for server in self._job_servers]
        while time.monotonic() < until_s:
            time.sleep(1)
            now = [server.cpu_time_s() for server in self._job_servers]
            work = [later - earlier for later, earlier in zip(now, before, strict=True)]
            shares.append(work[victim] / max(sum(work), 1e-9))
            before = now
        return shares

    def _command(self, subject: str) -> list[str]:
        tail = [FUNCTION, str(self.connections), str(SECONDS), str(BIN_S)]
        if subject == "libgearman":
            return [str(self._client), HOST, *map(str, self._ports), *tail]
        return [sys.executable, str(BENCHMARKS / "failover_http.py"), HOST, str(self._gateway_port), *tail]


def rows_of(turns: dict[str, list[Turn]], connections: int) -> list[Row]:
    """The table, gatewayx against its bars and libgearman for comparison."""
    rows = []
    for subject, found in turns.items():
        failures = [float(turn.failures_after_kill) for turn in found]
        ends_s = [turn.last_failure_after_s for turn in found]
        shares_s = [turn.share_after_s for turn in found]
        names = (
            f"{subject}: failures in all",
            f"{subject}: from the kill until all is good",
            f"{subject}: from the restart until it has its share",
        )
        if subject == "gatewayx":
            rows += [
                at_most(names[0], failures, connections, "", f"{connections} connections, one request each"),
                at_most(names[1], ends_s, 1.0, " s", ""),
                at_most(names[2], shares_s, 12.0, " s", "four fifths of what it had, by processor time"),
            ]
        else:
            rows += [
                information(name, values, unit, "")
                for name, values, unit in zip(names, (failures, ends_s, shares_s), ("", " s", " s"), strict=True)
            ]
    return rows


def draw(turns: dict[str, list[Turn]], path: Path) -> None:
    """Requests a second and failures over time, the last round of each subject."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchmarkError("the picture needs matplotlib: pip install --group bench") from None
    figure = Figure(figsize=(10, 6), layout="constrained")
    for number, (subject, found) in enumerate(turns.items()):
        turn = found[-1]
        times_s = [bin_number * BIN_S for bin_number in range(len(turn.good))]
        axes = figure.add_subplot(2, 1, number + 1)
        axes.plot(times_s, [count / BIN_S for count in turn.good], color="tab:blue", linewidth=1, label="good")
        failed = {time_s: count / BIN_S for time_s, count in zip(times_s, turn.failed, strict=True) if count}
        axes.vlines(list(failed), 0, list(failed.values()), color="tab:red", label="failed")
        axes.axvline(turn.killed_at_s, color="black", linestyle="--", linewidth=1, label="SIGKILL")
        axes.axvline(turn.restarted_at_s, color="black", linestyle=":", linewidth=1, label="started again")
        axes.set(title=f"{subject}: {sum(turn.failed)} failures", ylabel="jobs a second", xlim=(0, SECONDS))
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right", fontsize="small")
    axes.set_xlabel("seconds")
    # Without the date, so that the same data give the same file.
    with rc_context({"svg.hashsalt": "gatewayx"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    require_programs({"gearmand": "gearman-job-server", "cc": "gcc"})
    turns: dict[str, list[Turn]] = {subject: [] for subject in SUBJECTS}
    with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
        scene = Scene(processes, arguments.connections)
        for number in range(arguments.rounds):
            for subject in SUBJECTS:
                turn = scene.turn(subject)
                turns[subject].append(turn)
                print(
                    f"round {number + 1}, {subject}: {sum(turn.good) / SECONDS:,.0f} good a second, "
                    f"{turn.failures_after_kill} failed, the last {turn.last_failure_after_s:.1f} s after the kill, "
                    f"its share back {turn.share_after_s:g} s after the restart",
                    flush=True,
                )
    rows = rows_of(turns, arguments.connections)
    print(text_table(rows))
    settings = {"rounds": arguments.rounds, "connections": arguments.connections, "bin_s": BIN_S}
    raw = {subject: [asdict(turn) for turn in found] for subject, found in turns.items()}
    title = "A job server dies and comes back"
    write_report(arguments.output, "failover", title, rows, settings, raw, picture="failover.svg")
    draw(turns, arguments.output / "failover.svg")
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"failover: {error}")
