"""The demo as a user runs it."""

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

STOP_TIMEOUT_S = 10


@contextmanager
def running_demo(listen: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the demo; gives the process and the lines it printed up to the one that says how to stop it."""
    command = [sys.executable, "-m", "gatewayx", "demo", "--listen", listen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Ctrl-C" in line:
                    break
            yield process, lines
        finally:
            process.kill()


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_the_printed_line_works_and_a_signal_stops_it_cleanly(stop_signal: signal.Signals) -> None:
    with running_demo("127.0.0.1:0") as (process, lines):
        printed = re.search(
            r"curl -d 'Hello world!' (http://127\.0\.0\.1:[1-9][0-9]*/reverse) +# !dlrow olleH", "".join(lines)
        )
        assert printed is not None, process.communicate(timeout=STOP_TIMEOUT_S)
        without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with without_proxy.open(printed[1], data=b"Hello world!", timeout=STOP_TIMEOUT_S) as answer:
            assert answer.read() == b"!dlrow olleH"
        process.send_signal(stop_signal)
        _, errors = process.communicate(timeout=STOP_TIMEOUT_S)

        assert errors == ""
        assert process.returncode == 0


def test_a_port_already_taken_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with running_demo(address) as (process, lines):
            _, errors = process.communicate(timeout=STOP_TIMEOUT_S)

    assert process.returncode == 1
    assert errors.startswith("gatewayx: ")
    assert address in errors
    assert errors.count("\n") == 1
    assert lines == []
