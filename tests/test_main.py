"""How the command begins: its standard descriptors."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.gearmand import die_with_parent
from support.job_servers import nobody_listens

TIMEOUT_S = 60
COMBINATIONS = [found for count in (1, 2, 3) for found in itertools.combinations(range(3), count)]
EACH_AND_ALL = [(0,), (1,), (2,), (0, 1, 2)]


def without(closed: tuple[int, ...]) -> Callable[[], None]:
    """What closes these descriptors in a new process."""

    def close() -> None:
        die_with_parent()
        for descriptor in closed:
            os.close(descriptor)

    return close


def command(*arguments: str) -> list[str]:
    """A command line."""
    return [sys.executable, "-m", "gatewayx", *arguments]


def target(process_id: int, descriptor: int) -> str:
    """What a descriptor of a process stands for."""
    return str(Path(f"/proc/{process_id}/fd/{descriptor}").readlink())


def listens(process_id: int) -> bool:
    """Whether the process has a listening socket of its own."""
    sockets = set()
    for entry in Path(f"/proc/{process_id}/fd").iterdir():
        try:
            sockets.add(str(entry.readlink()))
        except FileNotFoundError:
            continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # 0A is LISTEN; the inode stands in the tenth column (proc_pid_net(5)).
    return any(row[3] == "0A" and f"socket:[{row[9]}]" in sockets for row in rows)


@pytest.mark.parametrize(
    ("name", "closed"),
    [*(("serve", closed) for closed in COMBINATIONS), *(("demo", closed) for closed in EACH_AND_ALL)],
)
def test_with_closed_standard_descriptors_a_stop_ends_with_exit_code_0(name: str, closed: tuple[int, ...]) -> None:
    host, port = nobody_listens()
    arguments = ("--server", f"{host}:{port}") if name == "serve" else ()
    with subprocess.Popen(
        command(name, "--listen", "127.0.0.1:0", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=without(closed),
    ) as process:
        try:
            ends_s = time.monotonic() + TIMEOUT_S
            while not listens(process.pid):
                assert process.poll() is None
                assert time.monotonic() < ends_s
                time.sleep(0.01)
            for descriptor in closed:
                assert target(process.pid, descriptor) == "/dev/null"
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=TIMEOUT_S)
        finally:
            process.kill()
    assert process.returncode == 0
    assert b"Traceback" not in errors


@pytest.mark.parametrize("closed", EACH_AND_ALL)
@pytest.mark.parametrize("arguments", [("check",), ("bench", "--help")], ids=" ".join)
def test_what_is_printed_goes_nowhere_else(arguments: tuple[str, ...], closed: tuple[int, ...]) -> None:
    result = subprocess.run(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=without(closed),
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert bool(result.stdout) == (1 not in closed)


def test_an_error_does_not_go_to_standard_output_when_standard_error_is_closed() -> None:
    result = subprocess.run(
        command("check", "--max-headers", "0"),
        capture_output=True,
        preexec_fn=without((2,)),
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, b"")


@pytest.mark.parametrize("arguments", [("check",), ("demo", "--listen", "127.0.0.1:0")])
def test_standard_output_that_cannot_be_written_is_one_line_and_exit_code_1(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            command(*arguments), stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False
        )
    assert result.returncode == 1
    assert result.stderr == b"gatewayx: standard output cannot be written: No space left on device\n"


def test_standard_output_that_nobody_reads_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            command("check"), stdout=writing, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False
        )
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (1, b"")
