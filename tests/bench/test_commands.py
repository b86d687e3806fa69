"""`gatewayx bench` as a user runs it: exit codes, what goes where, and what is left alone."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatewayx.bench import result
from support.bench_runs import make_run, phases_of
from support.gearmand import die_with_parent

# A sanitized process on a busy machine takes long to load, and longer to draw.
TIMEOUT_S = 100.0

# A run's keys, in no order.
RUN_KEYS = {
    *("schema", "name", "target", "settings", "date", "version", "machine", "seconds", "requests", "rps"),
    *("rate_reached", "latency_s", "latency_uncorrected_s", "statuses", "bad_response", "errors", "bytes", "generator"),
    *("server", "flood", "timeline", "histogram", "expectations"),
}
LATENCY_KEYS = {"p50", "p90", "p99", "p999", "p9999", "max", "mean"}
SERVER_KEYS = {
    *("pid", "processes", "cpu_s", "memory_start_bytes", "memory_peak_bytes", "memory_end_bytes"),
    *("memory_growth_bytes", "memory_slope_bytes_per_s", "ended_at_s"),
}

SHORT = ("--body", "hello", "--connections", "4", "--duration", "0.5")


def environment(**changes: str) -> dict[str, str]:
    """This process's without settings of gatewayx, and without the size of the terminal in which the tests run."""
    left_out = ("GATEWAYX_", "COLUMNS", "LINES")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | changes


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start `gatewayx bench`."""
    return subprocess.Popen(
        [sys.executable, "-m", "gatewayx", "bench", *arguments],
        stdin=subprocess.DEVNULL,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment(), **options},
        preexec_fn=die_with_parent,
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, str]:
    """Exit code, standard output and standard error."""
    with process:
        try:
            output, errors = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    return process.returncode, output, errors.decode()


def bench(*arguments: str, **options: Any) -> tuple[int, bytes, str]:
    """Run `gatewayx bench` to its end."""
    return ended(start(*arguments, **options))


class Demo:
    """A running `gatewayx demo`."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.pid = str(process.pid)
        self.url = url
        self.echo = f"{url}/echo"

    def is_connected_to(self) -> bool:
        """Whether a connection to it is established."""
        local = f"0100007F:{int(self.url.rpartition(':')[2]):04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return any((line[1], line[3]) == (local, "01") for line in lines)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """The target of all tests here."""
    command = [sys.executable, "-m", "gatewayx", "demo", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), preexec_fn=die_with_parent) as process:
        try:
            assert process.stdout is not None
            told = re.search(rb"HTTP at (127\.0\.0\.1:[0-9]+)", process.stdout.readline())
            assert told is not None
            yield Demo(process, f"http://{told[1].decode()}")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def measured(demo: Demo) -> tuple[int, bytes, str]:
    """One run that is looked at from several sides, of which no request was kept back by a machine that stood still."""
    while True:
        found = bench("run", demo.echo, *SHORT, "--check", "echo", "--pid", demo.pid, "--rate", "200", "--json", "-")
        if b"not_sent" not in found[1]:
            return found


def test_with_json_on_standard_output_nothing_else_is_there(measured: tuple[int, bytes, str]) -> None:
    code, output, errors = measured

    assert code == 0
    (run,) = result.decode(output, "-")
    assert output.endswith(b"}\n")
    assert "good answers/s" in errors
    assert run.requests == 100
    assert run.statuses == {"200": 100}
    assert run.errors == {}
    assert 0 < run.rate_reached <= 200


def test_the_json_has_what_schema_1_says(measured: tuple[int, bytes, str]) -> None:
    # Every Struct forbids unknown fields, so that this is strict.
    run = msgspec.json.decode(measured[1], type=result.Run)
    keys = msgspec.json.decode(measured[1])

    assert set(keys) == RUN_KEYS
    assert keys["schema"] == 1
    assert set(keys["latency_s"]) == set(keys["latency_uncorrected_s"]) == LATENCY_KEYS
    assert set(keys["server"]) == SERVER_KEYS
    assert set(keys["bytes"]) == {"sent", "received"}
    assert run.server is not None
    assert run.server.memory_peak_bytes >= run.server.memory_start_bytes > 0
    assert run.server.cpu_s > 0
    assert run.latency_s is not None
    assert 0 < run.latency_s.p50 <= run.latency_s.p99 <= run.latency_s.max < TIMEOUT_S
    assert sum(count for _, count in run.histogram) == run.requests
    assert sum(point.requests for point in run.timeline) <= run.requests


def test_without_a_terminal_progress_is_plain_lines_on_standard_error(measured: tuple[int, bytes, str]) -> None:
    lines = measured[2].splitlines()

    # Of the memory nothing is told before somebody has looked at it.
    assert re.match(r"run +[0-9.]+/0\.5 s  [0-9,]+/s  p50 .*  p99 .*  errors 0(  memory |$)", lines[0])
    assert "\x1b" not in measured[2]


def test_on_a_terminal_the_percentiles_are_drawn(demo: Demo) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = start("run", demo.echo, *SHORT, stderr=follower, env=environment(TERM="xterm"))
    os.close(follower)
    drawn = b""
    try:
        # EIO is the end of a terminal whose other side is closed.
        while piece := os.read(leader, 65536):
            drawn += piece
    except OSError:
        pass
    finally:
        os.close(leader)
    output, _ = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 0
    assert b"\x1b[" in drawn
    for word in (b"p50", b"p90", b"p99", b"p99.9", b"requests/s", b"of 0.5 s"):
        assert word in drawn
    assert b"good answers/s" in output


def test_files_and_a_summary_on_standard_output(demo: Demo, tmp_path: Path) -> None:
    code, output, errors = bench(
        *("run", demo.echo, *SHORT, "--json", str(tmp_path / "a.json"), "--hdr", str(tmp_path / "a.hgrm")),
        *("--html", str(tmp_path / "a.html"), "--expect", "errors<1", "--expect", "p99<20s"),
    )

    assert code == 0, errors
    assert "good answers/s" in output.decode()
    assert "met: errors<1, measured 0" in output.decode()
    (run,) = result.decode((tmp_path / "a.json").read_bytes(), "a.json")
    assert [expectation.passed for expectation in run.expectations] == [True, True]
    assert f"TotalCount     = {run.requests:12d}" in (tmp_path / "a.hgrm").read_text()
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")


def test_what_is_late_or_was_never_answered_is_in_the_hgrm_as_well(demo: Demo, tmp_path: Path) -> None:
    code, output, _ = bench(
        *("run", f"{demo.url}/sleep", "--body", "5", "--connections", "2", "--duration", "0.3", "--rate", "20"),
        *("--timeout", "0.8", "--json", "-", "--hdr", str(tmp_path / "a.hgrm")),
    )

    (run,) = result.decode(output, "-")
    assert code == 0
    # Two were sent, or fewer where the machine stood still meanwhile.
    assert run.errors.keys() <= {"timeout", "not_sent"}
    assert sum(run.errors.values()) == 6
    assert run.errors.get("timeout", 0) <= 2
    assert run.rps == 0
    assert sum(count for _, count in run.histogram) == 6
    assert f"TotalCount     = {6:12d}" in (tmp_path / "a.hgrm").read_text()


def test_an_expectation_that_fails_is_exit_code_99(demo: Demo) -> None:
    code, output, _ = bench("run", demo.echo, *SHORT, "--expect", "p50<1us", "--expect", "rps>1", "--json", "-")

    (run,) = result.decode(output, "-")
    assert code == 99
    assert [expectation.passed for expectation in run.expectations] == [False, True]


def test_a_flood_has_three_phases_of_good_traffic(demo: Demo) -> None:
    code, output, errors = bench(
        *("flood", demo.echo, "--body", "hello", "--kind", "bad-line", "--duration", "4", "--calm", "0.5"),
        *("--good-rate", "100", "--rate", "200", "--expect", "good-p99<5s", "--json", "-"),
    )

    assert code == 0, errors
    (run,) = result.decode(output, "-")
    assert run.flood is not None
    assert set(run.flood.statuses) == {"400"}
    assert run.flood.opened > 0
    assert min(phase.requests for phase in (run.flood.before, run.flood.during, run.flood.after)) > 0
    assert "during" in phases_of(run)
    # A machine that stands still at the end of the time keeps the last ones from it.
    assert run.errors.keys() <= {"not_sent"}


def test_nobody_listens_is_exit_code_1() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        code, output, errors = bench("run", f"http://127.0.0.1:{port}/")

    assert (code, output) == (1, b"")
    assert errors == f"gatewayx bench: cannot connect to 127.0.0.1:{port} (127.0.0.1:{port}): Connection refused\n"


@pytest.mark.parametrize("option", ["--json", "--hdr", "--html"])
def test_a_file_where_there_is_no_directory_is_exit_code_1_before_anything_is_measured(
    demo: Demo, tmp_path: Path, option: str
) -> None:
    file = tmp_path / "missing" / "file"
    code, output, errors = bench("run", demo.echo, "--duration", "60", option, str(file))

    assert (code, output) == (1, b"")
    assert errors == f"gatewayx bench: cannot write {file}: there is no directory {file.parent}\n"


def test_a_file_that_cannot_be_written_is_exit_code_1(demo: Demo, tmp_path: Path) -> None:
    for option in ("--json", "--html"):
        code, _, errors = bench("run", demo.echo, *SHORT, option, str(tmp_path))

        assert code == 1
        assert f"gatewayx bench: cannot write {tmp_path}: Is a directory\n" in errors


WRONG = {
    "no connections": (["--connections", "0"], "--connections"),
    "no rate": (["--rate", "0"], "--rate"),
    "a rate that is none": (["--rate", "nan"], "--rate"),
    "a duration that is none": (["--duration", "nan"], "--duration"),
    "a check that there is not": (["--check", "nothing"], "--check"),
    "an option that there is not": (["--speed", "9"], "--speed"),
    "a header without a colon": (["-H", "nothing"], "-H 'nothing' is not of the form"),
    "a header of the generator's": (["-H", "Content-Length: 3"], "Content-Length"),
    "a header with a line end": (["-H", "A: b\nC: d"], "the value of A has characters"),
    "a method that is none": (["--method", "G T"], "'G T' is no method"),
    "two bodies": (["--body", "a", "--body-size", "9"], "exclude each other"),
    "a body from no file": (["--body", "@/nowhere"], "No such file"),
    "a body too short to be unique": (["--body", "a", "--unique-bodies"], "8 bytes"),
    "two ways to name a process": (["--pid", "1", "--process", "a"], "exclude each other"),
    "an unknown process": (["--process", "no such process"], "no process is called 'no such process'"),
    "no expectation": (["--expect", "fast"], "'fast' is not METRIC OPERATOR VALUE"),
    "an unknown metric": (["--expect", "p42<1ms"], "'p42' is no metric"),
    "an unknown unit": (["--expect", "p99<1h"], "p99 is compared with a time"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_exit_code_2_and_says_what(demo: Demo, case: str) -> None:
    options, part = WRONG[case]
    code, output, errors = bench("run", demo.echo, "--duration", "60", *options)

    assert (code, output) == (2, b"")
    assert part in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("https://127.0.0.1/", "is not of the form http://HOST[:PORT]/PATH"),
        ("http://192.0.2.1/", "--allow-remote if it is yours to load"),
        ("http://127.0.0.1:99999/", "is no URL"),
    ],
)
@pytest.mark.parametrize("command", ["run", "flood"])
def test_a_url_that_cannot_be_loaded_is_exit_code_2(command: str, url: str, part: str) -> None:
    code, output, errors = bench(command, url)

    assert (code, output) == (2, b"")
    assert part in errors
    assert errors.count("\n") == 1


def test_compare_tells_a_table_or_whose_fault_it_is(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_bytes(result.encode(make_run()))
    bad.write_text("no JSON")

    code, output, _ = bench("compare", str(good), str(good))
    assert code == 0
    assert "within noise" in output.decode()
    for arguments, expected, part in (
        ([str(good)], 2, "compare needs two files or more"),
        ([str(good), str(bad)], 2, "bad.json holds no results of gatewayx bench"),
        ([str(good), str(tmp_path / "missing")], 1, "missing: No such file"),
    ):
        code, output, errors = bench("compare", *arguments)
        assert (code, output) == (expected, b"")
        assert part in errors


def test_ctrl_c_ends_a_run_early_and_reports(demo: Demo) -> None:
    process = start("run", demo.echo, "--body", "hello", "--connections", "4", "--duration", "60", "--json", "-")
    assert process.stderr is not None
    began_s = time.monotonic()
    # It runs: three intervals are over.
    for _ in range(3):
        assert process.stderr.readline().startswith(b"run ")
    process.send_signal(signal.SIGINT)
    code, output, errors = ended(process)

    assert code == 0, errors
    (run,) = result.decode(output, "-")
    assert run.settings["ended_early"] is True
    assert 0.75 <= run.seconds < min(60, time.monotonic() - began_s + 0.25)
    assert run.errors == {}
    # Over the time that it ran, and not over part of it: the last one of each connection may be answered after it.
    assert run.requests - 4 <= round(run.rps * run.seconds) <= run.requests


def test_a_report_without_matplotlib_is_a_note_and_the_run_is_made(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    page = tmp_path / "a.html"
    code, output, errors = bench(
        "run", demo.echo, *SHORT, "--html", str(page), env=environment(PYTHONPATH=str(tmp_path))
    )

    assert code == 0
    assert "good answers/s" in output.decode()
    assert "pip install 'gatewayx[bench]'" in errors
    assert not page.exists()


def test_serve_loads_nothing_of_bench() -> None:
    code = (
        "import sys, gatewayx.cli, gatewayx.server.process\n"
        "heavy = ('gatewayx.bench', 'gatewayx.core.histogram', 'rich', 'matplotlib')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=TIMEOUT_S).stdout

    assert output == b"[]\n"


def test_demo_needs_nothing_and_tells_runs_and_verdicts_also_when_it_is_ended_early() -> None:
    process = start("demo", "--duration", "1", "--json", "-")
    assert process.stderr is not None
    # All of it takes 25 s.
    for line in process.stderr:
        if line.startswith(b"foreground, 64 connections, gatewayx"):
            break
    process.send_signal(signal.SIGINT)
    code, output, errors = ended(process)

    assert code == 0, errors
    found = msgspec.json.decode(output, type=result.Runs)
    assert [run.name for run in found.runs] == [f"foreground, {n} connections, gatewayx" for n in (1, 16, 64)]
    assert all(run.errors == {} and run.server is not None for run in found.runs)
    names = [verdict.name for verdict in found.verdicts]
    assert names[:2] == ["foreground, 1 connections: throughput", "foreground, 1 connections: p99"]
    assert names[-1] == "in the end: private memory"
    assert all(verdict.verdict == "answered rightly" for verdict in found.verdicts)
    assert "foreground, 16 connections: throughput" in errors


def test_plugin_without_gearmand_is_exit_code_1_and_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # /usr/sbin is searched beside PATH, so that emptying PATH is not enough where Debian's package is installed.
    (tmp_path / "sitecustomize.py").write_text("import shutil\nshutil.which = lambda *_, **__: None\n")
    code, output, errors = bench("plugin", env=environment(PATH="", PYTHONPATH=str(tmp_path)))

    assert (code, output) == (1, b"")
    assert errors.startswith("gatewayx bench: gearmand is not on PATH")
    assert errors.count("\n") == 1


def test_a_result_is_written_though_nobody_can_be_told(demo, tmp_path):
    told = tmp_path / "told.json"
    with Path("/dev/full").open("wb") as full:
        exit_code, _, errors = bench("run", demo.echo, *SHORT, "--json", str(told), stdout=full)
    assert exit_code == 1
    assert "cannot tell what was found: No space left on device" in errors
    assert result.decode(told.read_bytes(), "told.json")[0].requests


def test_the_death_of_the_server_under_test_is_told(demo):
    with subprocess.Popen(["sleep", "600"], preexec_fn=die_with_parent) as sampled:
        process = start("run", demo.echo, *SHORT, "--duration", "5", "--pid", str(sampled.pid))
        while process.poll() is None and not demo.is_connected_to():
            time.sleep(0.01)
        sampled.kill()
        exit_code, summary, _ = ended(process)
    assert exit_code == 0
    assert b"THE SERVER ENDED" in summary
