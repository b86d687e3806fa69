"""Processes of `gatewayx` that are forked by one that has imported everything: importing takes most of a short life.

To whoever has them they are what asyncio.create_subprocess_exec makes, as far as the tests ask. What they do not have
is a command line and a first environment of their own, as /proc shows them.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.gearmand import die_with_parent
from support.prepared_program import NUMBER

# pytest tells the running test so, which differs from process to process and matters to none.
OF_PYTEST = "PYTEST_CURRENT_TEST"


class AlsoLate(str):
    """Python for a process to run first, that does the same when all modules are imported already."""

    __slots__ = ()


class Program:
    """The process that forks, of which each process of the tests has one; it ends with it."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.prepared_program", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=self._environment | {"PYTHONPATH": path},
                pass_fds=[theirs.fileno()],
                preexec_fn=die_with_parent,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()

    def has(self, environment: Mapping[str, str]) -> bool:
        """Whether the program has begun in such an environment, which the interpreter and libraries read only then."""
        names = {name for name in {*environment, *self._environment} if not name.startswith("GATEWAYX_")}
        return all(environment.get(name) == self._environment.get(name) for name in names - {OF_PYTEST})

    def fork(self, arguments: list[str], before: str, environment: Mapping[str, str], streams: list[int]) -> int:
        """Ask for a process; returns where it tells its id, and then its end."""
        request = {
            "folder": str(Path.cwd()),
            "environment": dict(environment),
            "before": before,
            "arguments": arguments,
        }
        told, telling = os.pipe()
        try:
            socket.send_fds(self._requests, [json.dumps(request).encode()], [*streams, telling])
        finally:
            os.close(telling)
        return told


@functools.cache
def program() -> Program:
    """The one of this process."""
    return Program()


class Reading(asyncio.StreamReaderProtocol):
    """Hands over what is said; at the end uvloop, too, closes it by itself."""

    def eof_received(self) -> bool:
        """See asyncio.Protocol."""
        super().eof_received()
        return False


class PreparedProcess:
    """A process that was forked so; as asyncio.subprocess.Process.

    told: where it tells its id, and its end.
    reading: the end of the pipe that is its standard error.
    """

    def __init__(self, told: int, reading: int) -> None:
        self.stderr = asyncio.StreamReader()
        self._reading = open(reading, "rb", buffering=0)  # noqa: SIM115
        # Negative for a signal; None while it runs.
        self.returncode: int | None = None
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.create_future()
        self._ended = asyncio.Event()
        self._loop.add_reader(told, self._is_told)

    def _is_told(self) -> None:
        told = os.read(self._told, NUMBER.size)
        if told and not self._begun.done():
            self._begun.set_result(NUMBER.unpack(told)[0])
            return
        self._loop.remove_reader(self._told)
        os.close(self._told)
        if not self._begun.done():
            self._begun.set_exception(RuntimeError("the program that forks has ended"))
        elif told:
            self.returncode = os.waitstatus_to_exitcode(NUMBER.unpack(told)[0])
        else:
            # The program that forks is gone, and with it whatever it has forked.
            self.returncode = -signal.SIGKILL
        self._ended.set()

    async def begun(self) -> None:
        """Return once it is there, and `pid` its id."""
        self._pipe, _ = await self._loop.connect_read_pipe(lambda: Reading(self.stderr), self._reading)
        self.pid: int = await self._begun

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL, if it has not ended."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Read no more of what it says; to be called once it has ended."""
        self._pipe.close()


async def prepared(*arguments: str, before: str, environment: Mapping[str, str], stdout: int) -> PreparedProcess:
    """`gatewayx` with these arguments, whose standard error is read.

    before: Python that it runs first, when all modules are imported.
    stdout: a descriptor, or DEVNULL.
    """
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        out = null if stdout == asyncio.subprocess.DEVNULL else stdout
        told = program().fork(list(arguments), before, environment, [null, out, writing])
    finally:
        os.close(null)
        os.close(writing)
    process = PreparedProcess(told, reading)
    await process.begun()
    return process
