"""Keeps the connections to one job server up.

Each connection has a Task that connects, watches until it is lost, and comes back after a pause: exponential back-off
with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), so that gateways do not return all at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from gatewayx.core.jitter import random_part
from gatewayx.gearman.admin import AdminConnection
from gatewayx.gearman.connection import JobServerConnection
from gatewayx.gearman.status_connection import StatusAsker, StatusConnection
from gatewayx.gearman.tls import CERTIFICATE, told
from gatewayx.gearman.upstream import WRITE_HIGH_WATER_BYTES
from gatewayx.net.dialing import Dialer
from gatewayx.net.names import NumericHost, Resolver

if TYPE_CHECKING:
    from gatewayx.gearman.pool import Pool
    from gatewayx.gearman.pooled_server import PooledServer

logger = logging.getLogger("gatewayx.gearman")

# An attempt on one address that has not led to an answer is given up.
CONNECT_TIMEOUT_S = 5.0
# At most so many addresses of a name are tried.
MAX_ADDRESSES = 16
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
# After a connection that lived so long the first wait is the shortest again.
STEADY_S = 1.0
# A job server that hangs up on OPTION_REQ is asked again so often, over a further connection, since another one may
# have taken its place; and a connection that was replaced by such a one is looked at so often.
OPTION_RETRY_S = 60.0
RETIRED_CHECK_S = 0.5
# Whoever looks for signs of life so much of the interval too late has not listened either, which counts once in a row.
LATE_PART = 0.25
# A job server works in one thread: of its time all processes together take at most this part with `status`.
STATUS_PART = 0.02
# However long one takes, the next is asked for after this, or after a longer --status-interval.
RAREST_STATUS_S = 60.0
# A reason that holds is logged again so often; so many different ones meanwhile, each up to so many characters.
REPEAT_S = 60.0
MAX_REASONS = 16
MAX_REASON_CHARACTERS = 500
# Above so many queued jobs the log says that the job server may look for each among too many: gearmand's default of 991
# hash buckets makes chains of 50 jobs of them (libgearman-server/job.cc, _server_job_get_unique).
MANY_QUEUED_JOBS = 50_000
# A connection for questions over which none was asked for so long is closed.
UNUSED_S = 60.0
# The kernel gives up a connection that is idle and whose other side has vanished after 10 + 3 * 5 s.
TCP_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

Connection: TypeAlias = "JobServerConnection | AdminConnection"
AnyConnection = TypeVar("AnyConnection", bound="JobServerConnection | AdminConnection | StatusConnection")


class Reasons:
    """Why something is away, as far as the log has told it: each new reason is due once, and again each REPEAT_S.

    Beyond MAX_REASONS in that time further ones are left out: a job server that makes up reasons fills no log.
    """

    def __init__(self) -> None:
        # Reason to when it was told, the longest ago first.
        self._told_at_s: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Whether any was told."""
        return bool(self._told_at_s)

    def is_due(self, reason: str, now_s: float) -> bool:
        """Whether the reason is to be told now; if so it counts as told."""
        told_at_s = self._told_at_s.get(reason)
        if told_at_s is not None and now_s - told_at_s < REPEAT_S:
            return False
        self._told_at_s.pop(reason, None)
        if len(self._told_at_s) >= MAX_REASONS:
            oldest = next(iter(self._told_at_s))
            if now_s - self._told_at_s[oldest] < REPEAT_S:
                return False
            del self._told_at_s[oldest]
        self._told_at_s[reason] = now_s
        return True

    def forget(self) -> None:
        """It is back: whatever comes is new."""
        self._told_at_s.clear()


class Upkeep:
    """How connections are kept, to all job servers alike; changed in place, as the settings are.

    connections_per_server: how many for jobs, 1 or more; one for text commands comes with them. status_interval_s: how
    often `status` is asked for. askers: how many processes ask each job server so. check_interval_s: how often each
    connection must give a sign of life. tls_context: for the job servers with TLS; None without any.
    """

    def __init__(
        self,
        *,
        connections_per_server: int,
        status_interval_s: float = 2.0,
        askers: int = 1,
        check_interval_s: float = 5.0,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self.connections = connections_per_server
        self.status_interval_s = status_interval_s
        self.askers = askers
        self.check_interval_s = check_interval_s
        self.tls_context = tls_context

    def change(
        self,
        *,
        connections_per_server: int,
        status_interval_s: float,
        askers: int,
        check_interval_s: float,
        tls_context: ssl.SSLContext | None,
    ) -> bool:
        """Whether this makes a difference to connections that are there."""
        before = (self.connections, self.status_interval_s, self.check_interval_s)
        self.connections = connections_per_server
        self.status_interval_s = status_interval_s
        self.askers = askers
        self.check_interval_s = check_interval_s
        self.tls_context = tls_context
        return before != (connections_per_server, status_interval_s, check_interval_s)

    def status_pause_s(self, cost_s: float) -> float:
        """How long after one `status` the next is asked for, if one takes so much of the job server's time."""
        return max(self.status_interval_s, min(cost_s * self.askers / STATUS_PART, RAREST_STATUS_S))


class Keeper:
    """Connections to one job server.

    pool: hears of each connection that comes up or goes down. resolver: finds the addresses of the job server's name.
    dialer: makes the connections. upkeep: how many, and how they are kept.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: Pool,
        resolver: Resolver,
        dialer: Dialer,
        server: PooledServer,
        upkeep: Upkeep,
    ) -> None:
        self.loop = loop
        self.pool = pool
        self.server = server
        self.resolver = resolver
        self.dialer = dialer
        self.upkeep = upkeep
        self.closing = False
        # The next attempt sends OPTION_REQ. One that was hung up on before it was up is followed by one of the other
        # kind: there are job servers that hang up on what they do not know.
        self._asks_option = True
        self._told_without_exceptions = False
        # What ends connections that are still there for the jobs they have.
        self._retired: set[asyncio.Task[None]] = set()
        # Asks what the job server knows of jobs by their unique, once that was wanted.
        self._asker: StatusAsker | None = None
        # Done when the upkeep has changed, and then another one.
        self._changed: asyncio.Future[None] = loop.create_future()
        # Called after each loss of a connection.
        self.on_loss: Callable[[], None] = lambda: None
        # Done after the first attempt of each connection; some of those that are done are no longer there.
        self.tried: list[asyncio.Future[None]] = []
        # How many connections for jobs took the place of one that was lost.
        self._reconnects = 0
        # Why the last attempt or connection has come to nothing; empty since one is up.
        self.last_reason = ""
        # Not set while it leaves: no further attempts.
        self._wanted = asyncio.Event()
        self._wanted.set()
        # Why the job server is away, why a connection beside others is, and why the text connection is.
        self._reasons = Reasons()
        self._further_reasons = Reasons()
        self._text_reasons = Reasons()
        # The log has said that many jobs are queued, and since then there always were.
        self._told_queued = False
        # The log has said that `status` is asked for less often than is set.
        self._told_rarer = False
        # That of the text connection, then one for each of the others, by its number.
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> list[asyncio.Future[None]]:
        """Begin to connect; each future is done after a connection's first attempt."""
        self.tried.append(self._keep(partial(self.pool.admin_connection, self.server), is_text=True))
        self._have_connections()
        return self.tried

    @property
    def is_started(self) -> bool:
        """Whether it keeps connections."""
        return bool(self._tasks)

    def take_reconnects(self) -> int:
        """How many connections for jobs took the place of one that was lost, since this was asked last."""
        reconnects, self._reconnects = self._reconnects, 0
        return reconnects

    def adjust(self) -> None:
        """The upkeep has changed: connections that are too many are closed when their jobs have ended."""
        if self.closing or not self._tasks:
            return
        while len(self._tasks) - 1 > self.upkeep.connections:
            task = self._tasks.pop()
            task.cancel()
            self._let_end(task)
        self._have_connections()
        self.try_again()

    def try_again(self) -> None:
        """What a connection needs is there now, perhaps: make those that are waited for at once."""
        # A job server that has refused the gateway's certificate has hung up, too, and not on OPTION_REQ.
        self._asks_option = True
        self._changed.set_result(None)
        self._changed = self.loop.create_future()

    def _check_is_kept(self) -> None:
        """In a Task that was cancelled and does not know, as that has met an end (see _connect()), cancel it again."""
        if self.closing or asyncio.current_task() not in self._tasks:
            raise asyncio.CancelledError

    def _have_connections(self) -> None:
        self.tried = [attempt for attempt in self.tried if not attempt.done()]
        for number in range(len(self._tasks) - 1, self.upkeep.connections):
            self.tried.append(self._keep(partial(self.pool.job_connection, self.server, number), is_text=False))

    async def leave(self) -> None:
        """Make no new connections, and close those that there are once no job is outstanding on them."""
        self._wanted.clear()
        while self.server.outstanding_jobs:  # noqa: ASYNC110 (the data path sets no event for it)
            await asyncio.sleep(RETIRED_CHECK_S)
        await self.close()

    def stay(self) -> bool:
        """Undo leave(), which the caller cancels; False when it has begun to close."""
        if self.closing:
            return False
        self._wanted.set()
        return True

    async def close(self) -> None:
        """Close every connection; jobs that have not ended are lost."""
        self.closing = True
        tasks = [*self._tasks, *self._retired]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        if self._asker is not None:
            # A Task that was cancelled before its first step has told nobody.
            self._asker.failed("the gateway is stopping")

    def first_attempt_over(self) -> None:
        """Say that the job server is down if it is, whatever the attempts that are still under way lead to."""
        if not self.server.connected and not self._reasons:
            self._tell("no connection yet", is_text=False)

    def _keep(self, make_connection: Callable[[], Connection], *, is_text: bool) -> asyncio.Future[None]:
        tried: asyncio.Future[None] = self.loop.create_future()
        self._tasks.append(self.loop.create_task(self._keep_connected(make_connection, tried, is_text=is_text)))
        return tried

    async def _keep_connected(
        self, make_connection: Callable[[], Connection], tried: asyncio.Future[None], *, is_text: bool
    ) -> None:
        backoff_s = BACKOFF_FIRST_S
        was_lost = False
        while not self.closing:
            await self._wanted.wait()
            connection = None
            try:
                connection = await self._connect(make_connection, is_text=is_text)
                self._check_is_kept()
                up_at_s = self.loop.time()
                self._came_up(connection)
                self._reconnects += was_lost and not is_text
                if not tried.done():
                    tried.set_result(None)
                while successor := await self._watch(connection, make_connection):
                    self._retire(connection, "one that was asked for exceptions has taken its place")
                    connection = successor
                    self._came_up(connection)
                reason = str(connection.close_reason)
                # Another job server may have taken its place.
                self._asks_option = True
                # A job server that answers and then hangs up is no better than one that does not answer.
                if self.loop.time() - up_at_s >= STEADY_S:
                    backoff_s = BACKOFF_FIRST_S
            except OSError as error:
                reason = told(error)
            except Exception as error:
                logger.exception("an attempt to connect to job server %s failed", self.server.name)
                reason = str(error) or type(error).__name__
            except asyncio.CancelledError:
                if connection is not None and not self.closing:
                    # It is one too many.
                    self._retire(connection, "fewer connections are kept")
                    connection = None
                raise
            finally:
                if connection is not None:
                    connection.close("the gateway is stopping")
                    self.pool.went_down(self.server, connection)
                if not tried.done():
                    tried.set_result(None)
            self._tell(reason, is_text=is_text, lost=connection is not None)
            if connection is not None:
                was_lost = True
                self.on_loss()
            self._check_is_kept()
            changed, _ = await asyncio.wait((self._changed,), timeout=random_part(backoff_s))
            backoff_s = BACKOFF_FIRST_S if changed else min(backoff_s * 2, BACKOFF_MAX_S)

    def keep_asking(self, asker: StatusAsker) -> None:
        """Make a connection for its questions, and keep it as long as it is used."""
        self._asker = asker
        if self.closing:
            asker.failed("the job server is no longer used")
        else:
            self._let_end(self.loop.create_task(self._keep_asking(asker)))

    async def _keep_asking(self, asker: StatusAsker) -> None:
        connection = None
        reason = "the gateway is stopping"
        try:
            connection = await self._connect_asker(asker)
            asker.came_up(connection)
            stood_still = False
            while not connection.closed:
                due_s = self.loop.time() + min(self.upkeep.check_interval_s, UNUSED_S)
                await asyncio.wait((connection.gone,), timeout=due_s - self.loop.time())
                stood_still = not stood_still and self._is_late(due_s)
                if not stood_still:
                    connection.check(self.upkeep.check_interval_s)
                if connection.idle_s >= UNUSED_S:
                    connection.close("nothing was asked over it")
        except OSError as error:
            reason = str(error) or type(error).__name__
        except Exception as error:
            logger.exception("questions to job server %s failed", self.server.name)
            reason = str(error) or type(error).__name__
        finally:
            if connection is None:
                asker.failed(reason)
            else:
                connection.close(reason)

    async def _connect_asker(self, asker: StatusAsker) -> StatusConnection:
        """A connection for questions that is up, to the job server that has the jobs. Raises OSError."""
        timeout_s = self.upkeep.check_interval_s
        # A name may stand for several job servers, and what another one does not know proves nothing.
        preferred = {str(peer[0]) for peer in self.server.peers if peer is not None}
        try:
            connection = await asyncio.wait_for(
                self._connect(asker.new_connection, is_text=False, preferred=preferred), timeout_s
            )
        except asyncio.TimeoutError:
            raise OSError(f"no connection for questions came up within {timeout_s:g} s") from None
        if self.closing:
            # wait_for() may swallow a cancellation that meets its end (bpo-37658).
            connection.close("the gateway is stopping")
            raise asyncio.CancelledError
        if self.server.peers - {connection.peer}:
            reason = "its name stands for several job servers, and which of them has the job is not known"
            connection.close(reason)
            raise OSError(reason)
        return connection

    async def _connect(
        self,
        make_connection: Callable[[], AnyConnection],
        *,
        is_text: bool,
        asks_option: bool = False,
        preferred: Collection[str] = (),
    ) -> AnyConnection:
        """A connection that is up, to the first of the server's addresses that answers. Raises OSError.

        asks_option: send OPTION_REQ even if the last attempt was hung up on for it. preferred: addresses that are tried
        before others.
        """
        found = await self.resolver.resolve(self.server.host, lambda reason: self._tell(reason, is_text=is_text))
        if preferred:
            found = sorted(found, key=lambda address: address.host not in preferred)
        reasons = []
        for address in found[:MAX_ADDRESSES]:
            connection = make_connection()
            if isinstance(connection, JobServerConnection):
                connection.asks_option = self._asks_option or asks_option
            try:
                await asyncio.wait_for(self._come_up(connection, address), CONNECT_TIMEOUT_S)
            except asyncio.TimeoutError:
                asked = f" to {connection.unanswered}" if connection.unanswered else ""
                reason = f"no answer{asked} within {CONNECT_TIMEOUT_S:g} s"
            except OSError as error:
                reason = told(error)
                if (
                    isinstance(connection, JobServerConnection)
                    and connection.hung_up_unanswered
                    and CERTIFICATE not in reason
                ):
                    self._asks_option = not connection.asks_option
                if self.server.tls and connection.hung_up_unanswered and CERTIFICATE not in reason:
                    # Not every job server sends an alert, and a reset may overtake it.
                    reason += ", perhaps for want of a certificate of the gateway that it trusts"
            except BaseException:
                connection.close("the gateway is stopping")
                raise
            else:
                if not self.closing:
                    return connection
                # wait_for() may swallow a cancellation that meets its end (bpo-37658).
                connection.close("the gateway is stopping")
                raise asyncio.CancelledError
            connection.close(reason)
            reasons.append(reason if len(found) == 1 else f"{address}: {reason}")
        # In an order that does not depend on that of the addresses, which name servers rotate.
        raise OSError("; ".join(sorted(reasons)))

    async def _come_up(self, connection: AnyConnection, address: NumericHost) -> None:
        await self.dialer.dial(
            connection,
            address,
            self.server.port,
            write_high_bytes=WRITE_HIGH_WATER_BYTES,
            options=TCP_KEEPALIVE,
            tls_context=self.upkeep.tls_context if self.server.tls else None,
            tls_name=self.server.tls_name,
        )
        await asyncio.wait((connection.came_up, connection.gone), return_when=asyncio.FIRST_COMPLETED)
        if not connection.up:
            raise ConnectionResetError(connection.close_reason)

    async def _watch(self, connection: Connection, make_connection: Callable[[], Connection]) -> Connection | None:
        """Return once the connection is gone, and see to it that a silent one goes.

        If another connection is to take its place, that one is returned, and is up; None otherwise.
        """
        retry_at_s = self.loop.time() + OPTION_RETRY_S
        stood_still = False
        if isinstance(connection, AdminConnection):
            connection.ask_status(self._status_pause_s(connection))
        while not connection.closed:
            interval_s = self.upkeep.check_interval_s
            if isinstance(connection, AdminConnection):
                interval_s = min(interval_s, self._status_pause_s(connection))
            changed = self._changed
            due_s = self.loop.time() + interval_s
            await asyncio.wait((connection.gone, changed), timeout=interval_s, return_when=asyncio.FIRST_COMPLETED)
            stood_still = not stood_still and self._is_late(due_s)
            if (changed.done() or stood_still) and not connection.closed:
                # It has had no full interval for its sign of life, or that may not have been read yet.
                continue
            connection.check(self.upkeep.check_interval_s)
            if isinstance(connection, AdminConnection):
                self._look_at_queue(connection.status.queued_jobs)
                connection.ask_status(self._status_pause_s(connection))
            elif not connection.closed and not connection.asks_option and self.loop.time() >= retry_at_s:
                retry_at_s = self.loop.time() + OPTION_RETRY_S
                successor = await self._asking_again(make_connection)
                if successor is not None:
                    return successor
        return None

    def _is_late(self, due_s: float) -> bool:
        """Whether this process or its machine stood still beyond this loop time."""
        return self.loop.time() - due_s > LATE_PART * self.upkeep.check_interval_s

    def _status_pause_s(self, connection: AdminConnection) -> float:
        pause_s = self.upkeep.status_pause_s(connection.status_cost_s)
        is_rarer = pause_s > self.upkeep.status_interval_s
        if is_rarer and not self._told_rarer:
            logger.info(
                "job server %s takes %.0f ms for `status`: it is asked for every %.1f s",
                self.server.name,
                connection.status_cost_s * 1000,
                pause_s,
                extra={"about": self.server.name},
            )
        self._told_rarer |= is_rarer
        return pause_s

    def _look_at_queue(self, queued_jobs: int) -> None:
        """Say that so many jobs are queued that gearmand's hash chains are long: once, until there were fewer."""
        if queued_jobs > MANY_QUEUED_JOBS and not self._told_queued:
            logger.warning(
                "job server %s has %d jobs queued: with so many gearmand walks a long hash chain for each job, unless "
                "it was started with --hashtable-buckets 1000003 or the like",
                self.server.name,
                queued_jobs,
                extra={"about": self.server.name},
            )
        self._told_queued = queued_jobs > MANY_QUEUED_JOBS

    async def _asking_again(self, make_connection: Callable[[], Connection]) -> Connection | None:
        """A connection to a job server that hung up on OPTION_REQ and no longer does; None if it still does."""
        try:
            connection = await asyncio.wait_for(
                self._connect(make_connection, is_text=False, asks_option=True), CONNECT_TIMEOUT_S
            )
        except (OSError, asyncio.TimeoutError):
            return None
        self._asks_option = True
        return connection

    def _retire(self, connection: Connection, reason: str) -> None:
        if isinstance(connection, AdminConnection):
            raise TypeError("a text connection is closed at once")
        connection.retire()
        self._let_end(self.loop.create_task(self._end_retired(connection, reason)))

    def _let_end(self, task: asyncio.Task[None]) -> None:
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def _end_retired(self, connection: JobServerConnection, reason: str) -> None:
        """Close a connection that takes no more jobs once those it has have ended."""
        checked_at_s = self.loop.time()
        try:
            while not connection.closed and not connection.idle:
                await asyncio.wait((connection.gone,), timeout=RETIRED_CHECK_S)
                if self.loop.time() - checked_at_s >= self.upkeep.check_interval_s:
                    checked_at_s = self.loop.time()
                    connection.check(self.upkeep.check_interval_s)
        finally:
            connection.close(reason)
            self.pool.went_down(self.server, connection)

    def _came_up(self, connection: Connection) -> None:
        self.last_reason = ""
        if isinstance(connection, AdminConnection):
            self._text_reasons.forget()
        else:
            if not self.server.connected:
                logger.info("job server %s is connected", self.server.name, extra={"about": self.server.name})
                self._reasons.forget()
            if self.server.connected == self.upkeep.connections - 1:
                self._further_reasons.forget()
            if not connection.sends_exceptions and not self._told_without_exceptions:
                self._told_without_exceptions = True
                logger.warning(
                    "job server %s sends no exceptions, so a job that raised one is told as failed: %s",
                    self.server.name,
                    connection.option_answer,
                    extra={"about": self.server.name},
                )
        self.pool.came_up(self.server, connection)

    def _tell(self, reason: str, *, is_text: bool, lost: bool = False) -> None:
        """Say why the server is down, or a connection beside others, or the text connection, which makes it unknown.

        lost: a connection was up and is gone; that is said each time, since jobs may have gone with it.
        """
        if self.closing:
            return
        name = self.server.name
        # The limit on lines of one kind is for each job server: many go away together.
        about = {"about": name}
        reason = self.last_reason = reason[:MAX_REASON_CHARACTERS]
        now_s = self.loop.time()
        if not self._wanted.is_set():
            if lost and not is_text:
                logger.warning(
                    "a connection to job server %s, which is leaving, was lost: %s", name, reason, extra=about
                )
        elif not self.server.connected:
            # Why there is no text connection would say the same in other words.
            if not is_text and self._reasons.is_due(reason, now_s):
                logger.warning("job server %s is not connected, trying again: %s", name, reason, extra=about)
        elif is_text:
            if self._text_reasons.is_due(reason, now_s):
                logger.warning("job server %s does not answer by text, trying again: %s", name, reason, extra=about)
        elif lost:
            logger.warning("a connection to job server %s was lost, making it anew: %s", name, reason, extra=about)
        elif self._further_reasons.is_due(reason, now_s):
            logger.warning(
                "a further connection to job server %s is not made, trying again: %s", name, reason, extra=about
            )
