"""A real gearmand for tests, on a free port of the loopback, gone when the test is."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from support.ports import free_port

PR_SET_PDEATHSIG = 1
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
# Between choosing a free port and gearmand's bind, somebody else may take it.
START_ATTEMPTS = 3

LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """In the child: be killed when the process that started it is gone, however it went."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def is_whole(answer: bytes) -> bool:
    """Whether a text command's answer, which has no frame, has ended: one line, or lines up to a single dot."""
    if answer.startswith((b"OK", b"ERR")):
        return answer.endswith(b"\n")
    return answer == b".\n" or answer.endswith(b"\n.\n")


def ask(port: int, line: bytes, timeout_s: float = 45.0) -> bytes:
    """The answer to one text command; blocks, so it is not for a server on the caller's own loop."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(line + b"\n")
        answer = b""
        while not is_whole(answer):
            part = connection.recv(65536)
            if not part:
                raise ConnectionResetError(f"connection closed after {answer!r}")
            answer += part
        return answer


def gearmand_command() -> list[str]:
    """What starts gearmand: $GEARMAND, else the one that is installed. Raises FileNotFoundError without one."""
    chosen = shlex.split(os.environ.get("GEARMAND", ""))
    if chosen:
        return chosen
    binary = shutil.which("gearmand", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise FileNotFoundError("gearmand is not installed (Debian: gearman-job-server)")
    return [binary]


class Gearmand:
    """A running gearmand; a context manager that stops it.

    directory: where its log goes. arguments: further command-line arguments.
    The environment variable GEARMAND chooses another one than the installed: a command, as a shell reads it.
    Raises FileNotFoundError if it is not installed, RuntimeError with its log if it does not come up.
    """

    def __init__(self, directory: Path, *arguments: str, port: int | None = None) -> None:
        command = gearmand_command()
        self.log = directory / "gearmand.log"
        for _ in range(START_ATTEMPTS):
            self.port = port or free_port()
            self.process = subprocess.Popen(
                [*command, "-L", "127.0.0.1", "-p", str(self.port), "-l", str(self.log), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )
            if self.wait_until_up():
                return
            self.kill()
        text = self.log.read_text(errors="replace") if self.log.exists() else "no log"
        raise RuntimeError(f"gearmand did not come up in {START_ATTEMPTS} attempts: {text[-2000:]}")

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) to connect to."""
        return ("127.0.0.1", self.port)

    def wait_until_up(self) -> bool:
        """Whether it answers `version` within START_TIMEOUT_S."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return ask(self.port, b"version", timeout_s=START_TIMEOUT_S).startswith(b"OK")
            except OSError:
                time.sleep(0.01)
        return False

    def ask(self, line: bytes) -> bytes:
        """The answer to one text command."""
        return ask(self.port, line)

    def pause(self) -> None:
        """Freeze it: the kernel still accepts connections, nobody answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo pause()."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it with SIGTERM, after STOP_TIMEOUT_S with SIGKILL."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Gearmand:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
