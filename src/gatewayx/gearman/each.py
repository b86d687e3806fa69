"""Every address of a name as a job server of its own, as `each://` in the settings asks for.

Kubernetes gives a headless Service such a name: its addresses are the pods that are ready, and they come and go.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

from gatewayx.address import ServerAddress
from gatewayx.core.jitter import random_part
from gatewayx.gearman.keeper import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    CONNECT_TIMEOUT_S,
    MAX_REASON_CHARACTERS,
    Reasons,
)
from gatewayx.net.dialing import Dialer
from gatewayx.net.names import NumericHost, Resolver

if TYPE_CHECKING:
    from gatewayx.gearman.pool import Pool
    from gatewayx.gearman.pooled_server import PooledServer
    from gatewayx.gearman.roster import Roster

logger = logging.getLogger("gatewayx.gearman")

# The name is looked up this often. After the loss of a connection it is looked up at once, and then after twice as long
# each time, since name servers learn later than we do; never sooner than so after the last time.
REFRESH_S = 30.0
REFRESH_LEAST_S = 1.0
# While there is no number for an address, so often it is seen whether one has become free.
NUMBER_WAIT_S = 1.0
# At most so many addresses of a family are tried to find out whether the family can be reached.
MAX_PROBES = 16
# The log names at most so many of the addresses that are left out.
MAX_NAMED = 8


class EachAddress:
    """The job servers of one name: as many as it has addresses.

    All are of one family: that of the first address in the answer if any of that family can be connected, else of the
    next; it is kept while one of them is connected. An address that the name has no more gets no new jobs and is closed
    when its jobs have ended. An answer that is empty or an error changes nothing.

    pool: gets and loses the job servers. roster: knows what other entries have. entry: this one's number in it.
    address: as configured.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: Pool,
        roster: Roster,
        resolver: Resolver,
        dialer: Dialer,
        entry: int,
        address: ServerAddress,
    ) -> None:
        self.loop = loop
        self.pool = pool
        self.roster = roster
        self.resolver = resolver
        self.dialer = dialer
        self.entry = entry
        self.address = address
        # Which of the configured ones this is, from 0.
        self.position = entry
        # The job servers that get jobs, and those that get none any more, with the Task that waits for their ends.
        self.servers: dict[NumericHost, PooledServer] = {}
        self.leaving: dict[NumericHost, tuple[PooledServer, asyncio.Task[None]]] = {}
        # The addresses of the last good answer, sorted, so that every gateway has the same when there are too many.
        self._wanted: list[NumericHost] = []
        self._left_out: list[NumericHost] = []
        self._family = 0
        # An address that is to be used has no number yet.
        self._short = False
        self._reasons = Reasons()
        self._interval_s = REFRESH_S
        self._again: asyncio.Future[None] = loop.create_future()
        # What looks the name up; one that was cancelled is there for a moment beside its successor.
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def start(self) -> list[asyncio.Future[None]]:
        """Begin; the future is done after the first lookup and the first attempts on what it has found."""
        tried: asyncio.Future[None] = self.loop.create_future()
        task = self.loop.create_task(self._run(tried))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return [tried]

    def place(self, position: int) -> None:
        """It is this one of the configured ones from now on, from 0."""
        self.position = position
        for host, server in self.servers.items():
            self.pool.place(server, (position, *sort_key(host)))

    def leave(self) -> None:
        """It is configured no more: its job servers get no new jobs, and are closed when theirs have ended."""
        for task in self._tasks:
            task.cancel()
        self._short = False
        self._wanted = []
        self._reasons = Reasons()
        logger.info("the job servers of %s are configured no more: they get no new jobs", self.address)
        for host in list(self.servers):
            self._leave(host)

    def stay(self) -> bool:
        """Undo leave(), before start(): whoever is still there is used again."""
        return True

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it, after leave()."""
        return not self.leaving and not self._tasks

    async def close(self) -> None:
        """Change nothing any more; the connections are closed by the pool."""
        self._closing = True
        tasks = [*self._tasks, *(task for _, task in self.leaving.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def first_attempt_over(self) -> None:
        """Say that no address is known, or that its job servers are down, if that is so."""
        for server in self.servers.values():
            self.pool.keeper(server).first_attempt_over()
        if not self._wanted and not self._reasons:
            self._tell("no answer yet")

    def ask_again(self) -> None:
        """A connection was lost: the name may have other addresses now."""
        self._interval_s = REFRESH_LEAST_S
        if not self._again.done():
            self._again.set_result(None)

    async def _run(self, tried: asyncio.Future[None]) -> None:
        backoff_s = BACKOFF_FIRST_S
        while not self._closing:
            self._again = self.loop.create_future()
            asked_at_s = self.loop.time()
            try:
                await self._refresh(tried)
            except OSError as error:
                self._tell(str(error))
            except Exception as error:
                logger.exception("the addresses of %s are not renewed", self.address)
                self._tell(str(error) or type(error).__name__)
            if self._wanted:
                await self._until_refresh(asked_at_s)
                continue
            if not tried.done():
                tried.set_result(None)
            await asyncio.sleep(random_part(backoff_s))
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def _refresh(self, tried: asyncio.Future[None]) -> None:
        found = await self.resolver.resolve(self.address.host, self._tell)
        self._reasons.forget()
        self._family = await self._choose_family(found)
        self._wanted = sorted((host for host in found if host.family == self._family), key=sort_key)
        self._adjust()
        if not tried.done():

            def all_tried(attempts: asyncio.Future[Any]) -> None:
                if not tried.done():
                    tried.set_result(None)

            attempts = [attempt for server in self.servers.values() for attempt in self.pool.keeper(server).tried]
            asyncio.gather(*attempts).add_done_callback(all_tried)

    async def _until_refresh(self, asked_at_s: float) -> None:
        interval_s = self._interval_s
        self._interval_s = min(2 * interval_s, REFRESH_S)
        while not self._again.done() and (left_s := asked_at_s + interval_s - self.loop.time()) > 0:
            await asyncio.wait((self._again,), timeout=min(left_s, NUMBER_WAIT_S))
            if self._short:
                self._adjust()
        await asyncio.sleep(max(0.0, asked_at_s + REFRESH_LEAST_S - self.loop.time()))

    async def _choose_family(self, found: list[NumericHost]) -> int:
        families = list(dict.fromkeys(host.family for host in found))
        if len(families) == 1:
            return families[0]
        if self._family in families and any(server.connected for server in self.servers.values()):
            return self._family
        for family in families:
            if await self._can_be_connected([host for host in found if host.family == family][:MAX_PROBES]):
                return family
        return self._family if self._family in families else families[0]

    async def _can_be_connected(self, hosts: list[NumericHost]) -> bool:
        """Whether any of them takes a connection."""
        probes = {self.loop.create_task(self._probe(host)) for host in hosts}
        try:
            for probe in asyncio.as_completed(probes, timeout=CONNECT_TIMEOUT_S):
                if await probe:
                    return True
        except asyncio.TimeoutError:
            pass
        finally:
            for task in probes:
                task.cancel()
            await asyncio.gather(*probes, return_exceptions=True)
        return False

    async def _probe(self, host: NumericHost) -> bool:
        try:
            (await self.dialer.connect(host, self.address.port)).close()
        except OSError:
            return False
        return True

    def _adjust(self) -> None:
        """Bring the job servers into line with the addresses, as far as there are numbers for them."""
        if self._closing:
            return
        most = self.roster.most_servers(self)
        used = self._wanted[:most]
        for host in self.servers.keys() - set(used):
            self._leave(host)
            logger.info(
                "job server %s is no address of %s any more: it gets no new jobs",
                self.leaving[host][0].name,
                self.address,
            )
        self._short = False
        for host in used:
            if host not in self.servers and not self._join(host):
                self._short = True
        left_out = self._wanted[most:]
        if left_out != self._left_out:
            self._left_out = left_out
            if left_out:
                logger.warning(
                    "%s has %d addresses, of which %d are used, as there are at most 64 job servers; left out: %s%s",
                    self.address,
                    len(self._wanted),
                    len(used),
                    ", ".join(str(host) for host in left_out[:MAX_NAMED]),
                    " and others" if len(left_out) > MAX_NAMED else "",
                )

    def _join(self, host: NumericHost) -> bool:
        """Let the address have jobs; False when it cannot yet."""
        if host in self.leaving:
            server, task = self.leaving[host]
            if not self.pool.keeper(server).stay():
                return False
            task.cancel()
            del self.leaving[host]
            self.pool.readmit(server)
            self.pool.place(server, (self.position, *sort_key(host)))
        else:
            order = (self.position, *sort_key(host))
            address = self.address
            admitted = self.pool.admit(self.entry, order, str(host), address.port, address.tls, address.host)
            if admitted is None:
                return False
            server = admitted
            keeper = self.pool.keeper(server)
            keeper.on_loss = self.ask_again
            keeper.start()
        self.servers[host] = server
        logger.info("job server %s is an address of %s", server.name, self.address)
        return True

    def _leave(self, host: NumericHost) -> None:
        server = self.servers.pop(host)
        self.pool.retire(server)
        self.leaving[host] = (server, self.loop.create_task(self._retire(host, server)))

    async def _retire(self, host: NumericHost, server: PooledServer) -> None:
        await self.pool.keeper(server).leave()
        self.pool.drop(server)
        del self.leaving[host]
        if self._short:
            self._adjust()

    def _tell(self, reason: str) -> None:
        reason = reason[:MAX_REASON_CHARACTERS]
        if self._closing or not self._reasons.is_due(reason, self.loop.time()):
            return
        about = {"about": str(self.address)}
        if self._wanted:
            logger.warning(
                "the addresses of %s are not renewed, the last ones are kept: %s", self.address, reason, extra=about
            )
        else:
            logger.warning("the addresses of %s are not known, trying again: %s", self.address, reason, extra=about)


def sort_key(host: NumericHost) -> tuple[bytes, int]:
    """By which addresses of one family are sorted: as numbers."""
    return socket.inet_pton(host.family, host.host), host.scope
