"""One process that makes load: `python -m gatewayx.bench.process`, led by gatewayx.bench.measurement through pipes."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import uvloop

from gatewayx.bench.flood import MIXED, FloodGenerator, flood_kinds
from gatewayx.bench.load import LoadGenerator
from gatewayx.bench.plan import (
    Failed,
    FloodEnd,
    FloodPlan,
    FloodSnapshot,
    LoadEnd,
    LoadPlan,
    LoadSnapshot,
    Message,
    PhaseEnd,
    Ready,
    Window,
)
from gatewayx.bench.template import RequestTemplate
from gatewayx.net.open_files import raise_open_files
from gatewayx.net.sockets import Peer, clock_ns

if TYPE_CHECKING:
    from collections.abc import Callable

SWEEP_S = 0.05
# The longest line that the leading process sends: a plan with a body.
MAX_LINE_BYTES = 256 * 1024 * 1024
# For every connection to come up before the start.
CONNECT_TIMEOUT_S = 5.0
OTHER_DESCRIPTORS = 32
# How long requests under way may still take when somebody ends the run early; afterwards they are left out.
STOP_PATIENCE_S = 1.0


class Leader:
    """The pipes to the process that leads: reads lines, writes messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._writer = writer
        self._encoder = msgspec.json.Encoder()

    @classmethod
    async def meet(cls) -> Leader:
        """Take over standard input and output."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(os.dup(1), "wb"))
        return cls(reader, writer)

    async def line(self) -> bytes:
        """The next line; empty once the leader has closed the pipe."""
        return await self._reader.readline()

    def tell(self, message: Message) -> None:
        """Send a message; it waits in memory while the leader is busy."""
        # When the leader is gone nobody listens, and the input's end says so.
        if not self._writer.is_closing():
            self._writer.write(self._encoder.encode(message) + b"\n")

    def close(self) -> None:
        """Close the pipe to the leader; what was written still arrives."""
        self._writer.close()


def make_room_for(connections: int) -> None:
    """Let so many connections be open at once. Raises ValueError if the hard limit of open files is in the way."""
    needed = connections + OTHER_DESCRIPTORS
    possible = raise_open_files(needed)
    if possible < needed:
        raise ValueError(f"{needed} open files are needed and the hard limit is {possible}: use fewer connections")


def _waited_s() -> float:
    """How long this process was ready to run and had no processor (schedstat's second figure)."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


async def _connected(generator: LoadGenerator, connections: int) -> None:
    deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
    generator.connect()
    while generator.connected < connections and time.monotonic() < deadline_s:
        await asyncio.sleep(0.01)
        if generator.connect_errno:
            break


async def _sweep_until_done(
    generator: LoadGenerator | FloodGenerator, window: Window, interval_s: float, tell: Callable[[int], None]
) -> None:
    """Keep the generator going; `tell` is called with its number at the end of each interval of the window."""
    number = 0
    over = False
    while not generator.done:
        await asyncio.sleep(SWEEP_S)
        generator.sweep()
        at_ns = clock_ns()
        while not over and at_ns - window.begins_ns >= (number + 1) * interval_s * 1e9:
            tell(number)
            number += 1
            over = window.begins_ns + (number + 0.5) * interval_s * 1e9 > window.ends_ns


async def _window(leader: Leader) -> Window | None:
    line = await leader.line()
    return msgspec.json.decode(line, type=Window) if line else None


async def load(leader: Leader, plan: LoadPlan) -> None:
    """Make a share of the good traffic."""
    make_room_for(plan.connections)
    generator = LoadGenerator(
        asyncio.get_running_loop(),
        Peer(plan.address, plan.port),
        RequestTemplate(plan.head, plan.body, plan.tag, plan.check),
        connections=plan.connections,
        pipeline=plan.pipeline,
        rate=plan.rate,
        process=plan.process,
        processes=plan.processes,
        timeout_s=plan.timeout_s,
    )
    await _connected(generator, plan.connections)
    leader.tell(Ready(connected=generator.connected, connect_errno=generator.connect_errno))
    window = await _window(leader)
    if window is None:
        return
    await asyncio.sleep(max(0.0, (window.begins_ns - clock_ns()) / 1e9))
    began_cpu_s, began_waited_s = time.process_time(), _waited_s()
    generator.begin(window.begins_ns, window.ends_ns, window.flood_begins_ns, window.flood_ends_ns)
    stopping = asyncio.create_task(_stop_when_told(leader, generator))

    def snapshot(number: int) -> LoadSnapshot:
        return LoadSnapshot(number=number, at_ns=min(clock_ns(), window.ends_ns), **generator.snapshot())

    def use() -> tuple[float, float, float]:
        elapsed_s = (clock_ns() - window.begins_ns) / 1e9
        return time.process_time() - began_cpu_s, _waited_s() - began_waited_s, elapsed_s

    used: list[tuple[float, float, float]] = []

    def tell(number: int) -> None:
        leader.tell(snapshot(number))
        used[:] = [use()]

    sweeping = asyncio.create_task(_sweep_until_done(generator, window, plan.interval_s, tell))
    await asyncio.wait((sweeping, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not sweeping.done():
        await asyncio.wait((sweeping,), timeout=STOP_PATIENCE_S)
    cut_off = not sweeping.done()
    for task in (sweeping, stopping):
        task.cancel()
    await asyncio.gather(sweeping, stopping, return_exceptions=True)
    generator.finish(cut_off)
    # Up to the last interval: afterwards only stragglers are waited for.
    cpu_s, waited_s, elapsed_s = used[0] if used else use()
    leader.tell(
        LoadEnd(
            snapshot=snapshot(-1),
            latency=generator.latency.state(),
            uncorrected=generator.uncorrected.state(),
            lateness=generator.lateness.state(),
            phases=msgspec.convert(generator.phases(), list[PhaseEnd]) if window.flood_ends_ns else [],
            cpu_s=cpu_s,
            waited_s=waited_s,
            elapsed_s=elapsed_s,
            failed_connects=generator.failed_connects,
            bad_response=generator.bad_response,
        )
    )


async def flood(leader: Leader, plan: FloodPlan) -> None:
    """Make the flood."""
    make_room_for(plan.connections)
    kinds = flood_kinds(plan.path, plan.host)
    generator = FloodGenerator(
        asyncio.get_running_loop(),
        Peer(plan.address, plan.port, plan.sources),
        list(kinds.values()) if plan.kind == MIXED else [kinds[plan.kind]],
        connections=plan.connections,
        rate=plan.rate,
    )
    leader.tell(Ready(connected=0, connect_errno=0))
    window = await _window(leader)
    if window is None:
        return
    while clock_ns() < window.begins_ns:
        # Told to stop before it has begun: the input's end wakes it.
        if await _ended_within(leader, (window.begins_ns - clock_ns()) / 1e9):
            window = Window(begins_ns=clock_ns(), ends_ns=clock_ns())
    generator.begin(window.begins_ns, window.ends_ns)
    stopping = asyncio.create_task(_stop_when_told(leader, generator))
    await _sweep_until_done(
        generator, window, plan.interval_s, lambda _: leader.tell(FloodSnapshot(**generator.snapshot()))
    )
    stopping.cancel()
    snapshot = FloodSnapshot(**generator.snapshot())
    elapsed_s = (min(clock_ns(), window.ends_ns) - window.begins_ns) / 1e9
    generator.finish()
    leader.tell(FloodEnd(snapshot=snapshot, elapsed_s=elapsed_s))


async def _stop_when_told(leader: Leader, generator: LoadGenerator | FloodGenerator) -> None:
    while await leader.line():
        pass
    generator.stop()


async def _ended_within(leader: Leader, timeout_s: float) -> bool:
    waiting = asyncio.ensure_future(leader.line())
    done, _ = await asyncio.wait((waiting,), timeout=timeout_s)
    if not done:
        waiting.cancel()
    return bool(done) and not waiting.result()


async def _main() -> None:
    leader = await Leader.meet()
    line = await leader.line()
    if not line:
        return
    plan = msgspec.json.decode(line, type=LoadPlan | FloodPlan)
    # A collection would stop the clock of every request under way; nothing here makes cycles as it runs.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        if isinstance(plan, LoadPlan):
            await load(leader, plan)
        else:
            await flood(leader, plan)
    except (ValueError, OSError, MemoryError) as error:
        leader.tell(Failed(problem=str(error) or type(error).__name__))
    leader.close()
    await asyncio.sleep(0)


if __name__ == "__main__":
    uvloop.run(_main())
