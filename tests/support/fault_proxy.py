"""A TCP proxy in front of a job server that breaks connections exactly where a test says."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from support.gateway import eventually
from support.lost_connections import write

# Directions.
UP = "to the job server"
DOWN = "from the job server"


class Side(asyncio.Protocol):
    """One of the two sockets of a passed-on connection."""

    def __init__(self, proxy: FaultProxy, direction: str) -> None:
        self.proxy = proxy
        # Of what is received here.
        self.direction = direction
        self.other: Side | None = None
        self.early = b""
        self.transport: asyncio.Transport | None = None
        self.is_for_jobs = False
        # When the last piece that is on its way leaves.
        self.pieces: deque[bytes] = deque()
        self.busy_until_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:
        """asyncio: connected."""
        self.transport = transport
        self.proxy.sides.add(self)
        if self.direction == UP:
            self.proxy.open_other_side(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: pass it on, or do what was asked for."""
        if self.direction == UP and not self.is_for_jobs and data.startswith(b"\0"):
            self.is_for_jobs = True
            self.proxy.job_connections += 1
        if self.other is None or self.other.transport is None:
            self.early += data
            return
        self.proxy.pass_on(self, data)

    def joined(self) -> None:
        """The other side is connected."""
        early, self.early = self.early, b""
        if early:
            self.proxy.pass_on(self, early)

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: so is the other side."""
        self.proxy.sides.discard(self)
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class FaultProxy:
    """Passes connections on to `target`, (host, port). An asynchronous context manager; `address` is where it listens.

    What it is told to do concerns connections for jobs alone, unless it says otherwise: text connections pass whole.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.sides: set[Side] = set()
        self.job_connections = 0
        # Bytes of one piece, and seconds between two; 0 for as they come.
        self.piece_bytes = 0
        self.delay_s = 0.0
        # Direction to [bytes until then, what is injected there or None for the cut].
        self._faults: dict[str, list] = {}
        self._opening: set[asyncio.Task] = set()
        self.fired = asyncio.Event()
        # What is sent to the job server over text connections is held up; how many bytes were.
        self.mutes_text = False
        self.muted_bytes = 0

    def drop_text(self) -> None:
        """Cut all text connections at once, with what was held up of them."""
        for side in list(self.sides):
            if not self._for_jobs(side) and side.transport is not None:
                side.transport.abort()

    def cut(self, direction: str, after_bytes: int) -> None:
        """Cut the connection once exactly so many more bytes have passed in this direction, 0 for at once."""
        self._arm(direction, after_bytes, None)

    def inject(self, direction: str, after_bytes: int, data: bytes) -> None:
        """Put `data` after so many more bytes that pass in this direction."""
        self._arm(direction, after_bytes, data)

    def _arm(self, direction: str, after_bytes: int, data: bytes | None) -> None:
        self.fired.clear()
        self._faults[direction] = [after_bytes, data]
        if after_bytes == 0:
            [side] = [side for side in self.sides if side.direction == direction and self._for_jobs(side)]
            self.pass_on(side, b"")

    def _for_jobs(self, side: Side) -> bool:
        return side.is_for_jobs or (side.other is not None and side.other.is_for_jobs)

    def pass_on(self, side: Side, data: bytes) -> None:
        """Pass on what was received at `side`, with the faults that are due."""
        if side.other is None or side.other.transport is None:
            return
        if self.mutes_text and side.direction == UP and not self._for_jobs(side):
            self.muted_bytes += len(data)
            return
        fault = self._faults.get(side.direction) if self._for_jobs(side) else None
        if fault is None or len(data) < fault[0]:
            if fault is not None:
                fault[0] -= len(data)
            self._write(side, data)
            return
        del self._faults[side.direction]
        self.fired.set()
        self._write(side, data[: fault[0]])
        if fault[1] is not None:
            self._write(side, fault[1] + data[fault[0] :])
            return
        # What came before the cut arrives; nothing else does, in either direction.
        other, side.other = side.other, None
        other.other = None
        other.transport.close()
        side.transport.abort()

    def _write(self, side: Side, data: bytes) -> None:
        if not self.piece_bytes or not self._for_jobs(side):
            write(side.other.transport, data)
            return
        loop = asyncio.get_running_loop()
        for begin in range(0, len(data), self.piece_bytes):
            side.busy_until_s = max(side.busy_until_s, loop.time()) + self.delay_s
            # Timers that are due together may come in any order, pieces may not.
            side.pieces.append(data[begin : begin + self.piece_bytes])
            loop.call_at(side.busy_until_s, self._write_piece, side, side.other)

    def _write_piece(self, side: Side, to: Side) -> None:
        piece = side.pieces.popleft()
        if to.transport is not None:
            write(to.transport, piece)

    def open_other_side(self, side: Side) -> None:
        """Connect to the target."""
        task = asyncio.get_running_loop().create_task(self._open(side))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, side: Side) -> None:
        try:
            _, other = await asyncio.get_running_loop().create_connection(lambda: Side(self, DOWN), *self.target)
        except OSError:
            if side.transport is not None:
                side.transport.abort()
            return
        if side.transport is None:
            other.transport.abort()
            return
        side.other, other.other = other, side
        side.joined()
        other.joined()

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) to connect to."""
        return self.listener.sockets[0].getsockname()

    async def __aenter__(self) -> FaultProxy:
        self.listener = await asyncio.get_running_loop().create_server(lambda: Side(self, UP), "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.listener.close()
        for side in list(self.sides):
            if side.transport is not None:
                side.transport.abort()
        await eventually(lambda: not self.sides and not self._opening)
