"""The configured job servers: they come and go as the settings do, without touching the others' jobs.

Theory of operation. An entry of the settings is a SoleAddress, or with `each://` an EachAddress; either has job servers
in the pool. When the settings change, the entries that are new begin to connect while all others still get jobs. Once
the new ones were tried, those that are no more get no new jobs, and their connections are closed when their jobs have
ended. So there is somebody to take a job also while all job servers are replaced by others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from gatewayx.address import ServerAddress
from gatewayx.gearman.each import NUMBER_WAIT_S, EachAddress
from gatewayx.net.dialing import Dialer
from gatewayx.net.names import Resolver

if TYPE_CHECKING:
    from gatewayx.gearman.pool import Pool
    from gatewayx.gearman.pooled_server import PooledServer

logger = logging.getLogger("gatewayx.gearman")

# A start waits this long for each job server's first answer.
FIRST_ATTEMPT_S = 1.0
# Each has a bit of Job.refused_by.
MOST_SERVERS = 64

Entry: TypeAlias = "SoleAddress | EachAddress"


class SoleAddress:
    """The job server at one address, with the interface of an EachAddress.

    pool: gets and loses the job server. entry: this one's number in the roster. address: as configured.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool, entry: int, address: ServerAddress) -> None:
        self.loop = loop
        self.pool = pool
        self.entry = entry
        self.address = address
        self.position = entry
        # None as long as there is no number for it, and when it is gone.
        self.server: PooledServer | None = None
        # Waits for a number, or for the end of its jobs.
        self._waits: asyncio.Task[None] | None = None
        self._is_leaving = False
        self._admit()

    def start(self) -> list[asyncio.Future[None]]:
        """Begin; each future is done after a connection's first attempt."""
        self._is_leaving = False
        if self.server is None:
            self._waits = self.loop.create_task(self._wait_for_number())
            return []
        keeper = self.pool.keeper(self.server)
        return [] if keeper.is_started else keeper.start()

    def first_attempt_over(self) -> None:
        """Say that it is down if that is so."""
        if self.server is not None:
            self.pool.keeper(self.server).first_attempt_over()

    def place(self, position: int) -> None:
        """It is this one of the configured ones from now on, from 0."""
        self.position = position
        if self.server is not None:
            self.pool.place(self.server, (position,))

    def leave(self) -> None:
        """It is configured no more: it gets no new jobs, and is closed when its jobs have ended."""
        self._is_leaving = True
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None
        if self.server is not None:
            logger.info("job server %s is configured no more: it gets no new jobs", self.server.name)
            self.pool.retire(self.server)
            self._waits = self.loop.create_task(self._retire(self.server))

    def stay(self) -> bool:
        """Undo leave(), before start(); False when it has begun to close."""
        if self.server is None or not self.pool.keeper(self.server).stay():
            return False
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None
        self.pool.readmit(self.server)
        return True

    @property
    def servers(self) -> Sequence[PooledServer]:
        """The job servers that get jobs."""
        return () if self.server is None or self._is_leaving else (self.server,)

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it, after leave()."""
        return self.server is None

    async def close(self) -> None:
        """Change nothing any more; the connections are closed by the pool."""
        if self._waits is not None:
            self._waits.cancel()
            await asyncio.gather(self._waits, return_exceptions=True)

    def _admit(self) -> None:
        address = self.address
        self.server = self.pool.admit(self.entry, (self.position,), address.host, address.port, address.tls, None)

    async def _wait_for_number(self) -> None:
        while self.server is None:
            await asyncio.sleep(NUMBER_WAIT_S)
            self._admit()
        self.pool.keeper(self.server).start()

    async def _retire(self, server: PooledServer) -> None:
        await self.pool.keeper(server).leave()
        self.pool.drop(server)
        self.server = None


class Roster:
    """The entries of the settings, in their order.

    pool: gets and loses the job servers. resolver: finds the addresses of names. dialer: makes connections. addresses:
    of the configured job servers, 1 to 64. The entries have their places in them as numbers, later ones those that
    follow.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: Pool,
        resolver: Resolver,
        dialer: Dialer,
        addresses: Sequence[ServerAddress],
    ) -> None:
        self.loop = loop
        self.pool = pool
        self.resolver = resolver
        self.dialer = dialer
        self._made = 0
        self._check(addresses)
        self._entries = [self._make(address) for address in addresses]
        # Those that are configured no more and have jobs.
        self._leaving: list[Entry] = []

    async def start(self) -> None:
        """Begin to connect; returns once every job server was tried: connected, refused, or 1 s gone."""
        await self._start(self._entries)

    async def close(self) -> None:
        """Change nothing any more; the connections are closed by the pool."""
        await asyncio.gather(*(entry.close() for entry in (*self._entries, *self._leaving)))

    def most_servers(self, name: EachAddress) -> int:
        """How many job servers the name may have: those that the others leave, which have one at least."""
        return MOST_SERVERS - sum(max(1, len(entry.servers)) for entry in self._entries if entry is not name)

    async def change(
        self, addresses: Sequence[ServerAddress], function_servers: Iterable[tuple[bytes, Iterable[int]]]
    ) -> None:
        """Have these job servers from now on, and functions that go to some of them: to places in `addresses`.

        Not to be called before another call has returned.
        """
        self._check(addresses)
        had = {entry.address: entry for entry in self._entries}
        entries = []
        coming = []
        for address in addresses:
            entry = had.pop(address, None)
            if entry is None:
                entry = self._back(address) or self._make(address)
                coming.append(entry)
            entries.append(entry)
        going = list(had.values())
        self._entries = [*entries, *going]
        await self._start(coming)
        if self.pool.is_closing:
            return
        self._entries = entries
        for position, entry in enumerate(entries):
            entry.place(position)
        self.pool.map_functions(
            [(name, [entries[place].entry for place in places]) for name, places in function_servers]
        )
        for entry in going:
            entry.leave()
        self._leaving = [entry for entry in (*self._leaving, *going) if not entry.is_gone]

    def _check(self, addresses: Sequence[ServerAddress]) -> None:
        if not 1 <= len(addresses) <= MOST_SERVERS:
            raise ValueError(f"there must be 1 to {MOST_SERVERS} job servers")

    def _make(self, address: ServerAddress) -> Entry:
        number = self._made
        self._made += 1
        if address.each:
            return EachAddress(self.loop, self.pool, self, self.resolver, self.dialer, number, address)
        return SoleAddress(self.loop, self.pool, number, address)

    def _back(self, address: ServerAddress) -> Entry | None:
        """The entry of this address if it is leaving and can stay."""
        for entry in self._leaving:
            if entry.address == address and entry.stay():
                self._leaving.remove(entry)
                return entry
        return None

    async def _start(self, entries: Sequence[Entry]) -> None:
        """Let them begin; returns once each was tried, or after FIRST_ATTEMPT_S."""
        tried = [attempt for entry in entries for attempt in entry.start()]
        if tried:
            await asyncio.wait(tried, timeout=FIRST_ATTEMPT_S)
        for entry in entries:
            entry.first_attempt_over()
