"""The gateway for tests: in the test's own loop, where its counters can be seen, or as the process a user starts."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from fuzz.held import OF_JOB_SERVERS, still_held
from gatewayx.address import Address, ServerAddress, UnixAddress
from gatewayx.config.settings import Settings
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.shared import KEPT_KEYS
from gatewayx.gearman import roster
from gatewayx.server.process import GatewayProcess
from support.documented import OTHERS
from support.gearmand import die_with_parent
from support.times import DEADLINES, FIRST_ATTEMPT_S, PROCESS_S, WAIT_S

POLL_S = 0.002

# Has a process of the gateway wait at its start for job servers that answer late; and the command that it is.
PATIENT = f"from gatewayx.gearman import roster\nroster.FIRST_ATTEMPT_S = {FIRST_ATTEMPT_S}\n"
COMMAND = "\nimport runpy\nrunpy.run_module('gatewayx', run_name='__main__', alter_sys=True)"

# The result bound of the gateways whose results are too large: low, so that the tests are quick.
MAX_RESULT = 200_000


async def eventually(condition: Callable[[], object], within_s: float = WAIT_S) -> None:
    """Return once the condition holds; for what only a counter tells. Fails after so long."""
    asked_s = time.monotonic()
    ends_s = asked_s + within_s
    while not condition():
        answered_s = time.monotonic()
        assert answered_s < ends_s, "the condition never came true"
        # One that takes long leaves most of the time to what it waits for.
        await asyncio.sleep(max(POLL_S, 4 * (answered_s - asked_s)))
        asked_s = time.monotonic()


async def cancelled(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks that have no end of their own; fails if one of them has ended otherwise."""
    pending = set(tasks)
    while pending:
        # asyncio.wait_for forgets a cancellation that comes together with its result (before Python 3.12).
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
    for task in tasks:
        assert task.cancelled(), task.exception()


def address_of(address: Address | UnixAddress) -> tuple[str, int] | str:
    """A host and a port, or the path of a unix socket, as HttpClient takes them."""
    return address.path if isinstance(address, UnixAddress) else (address.host, address.port)


class RunningGateway:
    """A started gateway: where it listens and what it counts."""

    def __init__(self, process: GatewayProcess) -> None:
        self.process = process
        self.address = address_of(process.addresses[0])

    def count(self, name: str) -> int:
        """One of the counters, such as `pool.outstanding_jobs`."""
        return self.process.counters()[name]

    def held(self) -> dict[str, int]:
        """What is held now for clients, by name; empty when nothing is."""
        return {name: count for name, count in still_held(self.process).items() if name not in OF_JOB_SERVERS}

    async def reaches(self, name: str, count: int) -> None:
        """Return once the counter has at least this value."""
        await eventually(lambda: self.count(name) >= count)

    async def told(self) -> None:
        """Return once every job server has told what functions, jobs and workers it has."""
        await eventually(lambda: all(server.status.functions_now() is not None for server in self.process.pool.servers))

    @contextmanager
    def within_a_tick(self) -> Iterator[None]:
        """Let the wheel stand still, so that all that happens meanwhile is within one tick on the slowest machine."""
        wheel = self.process.wheel
        # What is armed meanwhile is due as much later as it shall be.
        wheel.advance(self.process.loop.time() - self.process._stood_still_s)
        self.process.wheel = DeadlineWheel(3600.0, self.process.loop.time())
        try:
            yield
        finally:
            self.process.wheel = wheel

    def forget_keys(self) -> None:
        """Forget each idempotency key whose job has ended, as if its time were over."""
        ended = self.process.keys.counters()["ended"]
        # One whose job is kept is looked at twice; of many a part at a time.
        for _ in range(2 + ended // 1000):
            self.process.keys.tick(math.inf)
        running = self.process.keys.counters()["running"]
        assert (self.process.keys.counters()["ended"], self.process.shared.taken(KEPT_KEYS)) == (0, running)

    async def let_go(self) -> None:
        """Return once nothing is held any more; fails with what is left."""
        try:
            await eventually(lambda: not self.held())
        except AssertionError:
            raise AssertionError(f"the gateway still holds {self.held()}") from None


@asynccontextmanager
async def running_gateway(
    servers: Iterable[tuple[str, int] | ServerAddress],
    listen: tuple[Address | UnixAddress, ...] = (Address("127.0.0.1", 0),),
    *,
    is_patient: bool = True,
    **settings: object,
) -> AsyncIterator[RunningGateway]:
    """A gateway in front of `servers`, each (host, port) or a ServerAddress; settings: fields of Settings.

    is_patient: its start waits for job servers that answer late, and so does a change of them. On leaving, no
    connection, request, exchange, job, byte or deadline may be left of what the test did, and after closing no task
    that was not there before.
    """
    before = asyncio.all_tasks()
    process = GatewayProcess(
        Settings(
            listen=listen,
            server=tuple(ServerAddress(*server) for server in servers),
            **(DEADLINES | settings),
        )
    )
    waits_s = roster.FIRST_ATTEMPT_S
    try:
        if is_patient:
            roster.FIRST_ATTEMPT_S = FIRST_ATTEMPT_S
        await process.start()
        gateway = RunningGateway(process)
        if settings.get("plugin_compat"):
            OTHERS.add(gateway.address)
        yield gateway
        gateway.forget_keys()
        await gateway.let_go()
    finally:
        roster.FIRST_ATTEMPT_S = waits_s
        OTHERS.difference_update(address_of(address) for address in process.addresses)
        await process.close()
    left = [task for task in asyncio.all_tasks() - before if "TestRunner" not in task.get_coro().__qualname__]
    assert not left


def with_settings(**settings: object) -> pytest.MarkDecorator:
    """Run the gateway of a test below tests/http with these settings."""
    return pytest.mark.parametrize("settings", [settings], ids=["-".join(settings)])


def children_of(process_id: int) -> list[int]:
    """The processes that a process has forked and not waited for."""
    return [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


class ServeProcess:
    """`gatewayx serve` with these arguments, as a process of its own that does not outlive the test's.

    before: Python that the process runs first; it may set again what `PATIENT` has set.
    environment: Instead of this process's.
    stdout: a descriptor for its standard output. is_patient: its start waits for job servers that are slow to answer.
    """

    # Ends of the lines that say that it is ready.
    listens_on = re.compile(r"listens on [a-z+]+://([0-9.]+):([0-9]+)")

    def __init__(
        self,
        *arguments: str,
        preexec: Callable[[], None] = die_with_parent,
        before: str = "",
        environment: Mapping[str, str] = os.environ,
        stdout: int = asyncio.subprocess.DEVNULL,
        is_patient: bool = True,
    ) -> None:
        self.arguments = arguments
        self.stdout = stdout
        self.environment = environment
        before = PATIENT + before if is_patient else before
        self.program = ("-c", before + COMMAND) if before else ("-m", "gatewayx")
        self.preexec = preexec
        self.lines: list[str] = []
        self.listens: tuple[str, int] | None = None
        # Whoever reads its standard error, of which there may be one at a time.
        self._reads = asyncio.Lock()

    async def start(self) -> None:
        """Start the process and read what it says."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self.program,
            "serve",
            # Many are there at a time, and one can have the default address.
            *(() if "--admin" in self.arguments else ("--admin", "none")),
            # By default there are as many as processors, of which one machine has others than the next.
            *(() if "--workers" in self.arguments else ("--workers", "2")),
            *self.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self.stdout,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in self.environment.items() if not name.startswith("GATEWAYX_")},
            preexec_fn=self.preexec,
        )

    async def until(self, part: str) -> str:
        """The next line on standard error that holds `part`; fails if the process ends without it."""
        async with self._reads:
            while True:
                line = (await asyncio.wait_for(self.process.stderr.readline(), PROCESS_S)).decode()
                assert line, f"{part!r} is not in {''.join(self.lines)}"
                self.lines.append(line)
                if part in line:
                    return line

    async def has_said(self, part: str) -> str:
        """The first line that holds `part`, whether it was read before or comes yet."""
        said = next((line for line in self.lines if part in line), None)
        return await self.until(part) if said is None else said

    async def address(self) -> tuple[str, int]:
        """Where it listens, once it does."""
        line = await self.until("listens on")
        host, port = self.listens_on.search(line).groups()
        self.listens = (host, int(port))
        if "--plugin-compat" in self.arguments:
            OTHERS.add(self.listens)
        return self.listens

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, which is the master's."""
        self.process.send_signal(number)

    def workers(self) -> list[int]:
        """Its worker processes, by process id."""
        return children_of(self.process.pid)

    def all(self) -> list[int]:
        """The master and its worker processes."""
        return [self.process.pid, *self.workers()]

    def signal_workers(self, number: signal.Signals) -> None:
        """Send each of them a signal."""
        for process_id in self.workers():
            os.kill(process_id, number)

    async def ended(self) -> int:
        """Its exit code, once it has ended; what it said on the way is in `lines`."""
        async with self._reads:
            while line := await asyncio.wait_for(self.process.stderr.readline(), PROCESS_S):
                self.lines.append(line.decode())
        return await asyncio.wait_for(self.process.wait(), PROCESS_S)

    async def __aenter__(self) -> ServeProcess:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        OTHERS.discard(self.listens)
        if self.process.returncode is None:
            workers = self.workers()
            self.process.kill()
            for process_id in workers:
                # They would live on for as long as their drain takes, and hold the pipe of the log.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
            async with self._reads:
                await asyncio.wait_for(self.process.stderr.read(), PROCESS_S)
            await self.process.wait()
