"""One process: its loop, its listeners, its connections to the job servers, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Protocol

import uvloop

from gatewayx import __version__
from gatewayx.address import Address, UnixAddress
from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.turns import Turn
from gatewayx.errors import StartError, StateError
from gatewayx.gateway.admission import Admission
from gatewayx.gateway.exchange import Gateway
from gatewayx.gearman.pool import MOST_SERVERS, Pool
from gatewayx.http.clients import MAX_REFUSED_CONNECTIONS
from gatewayx.http.connection import HttpServer
from gatewayx.http.limits import Limits
from gatewayx.http.response import ResponseBuilder
from gatewayx.net.dialing import Dialer
from gatewayx.net.listener import Listener
from gatewayx.net.names import NumericHost, Resolver
from gatewayx.net.open_files import raise_open_files
from gatewayx.net.poller import TurnPoller
from gatewayx.net.sockets import give_memory_back
from gatewayx.server import logs, signals
from gatewayx.server.unix_sockets import UnixSocket, bind_unix_socket, owner_numbers

if TYPE_CHECKING:
    import ssl

    from gatewayx.config.settings import Settings

logger = logging.getLogger("gatewayx")

# Deadlines are swept this often, so they fire up to two of these late.
TICK_S = 0.1
# Deadlines that fire in one turn of the loop, and slow clients that are ended for want of room; those of ten thousand
# clients that are late together take several.
DEADLINES_PER_TURN = 32
# Connections that the kernel accepts while the loop is busy; it caps this at net.core.somaxconn.
BACKLOG = 4096
# Bytes of answers that the kernel takes for one client beyond what is on its way: without a bound it takes up to
# 4 MiB (net.ipv4.tcp_wmem) for each client that never reads, and the byte budget knows nothing of them.
MAX_NOTSENT_BYTES = 256 * 1024
# The kernel ends a connection whose answer lies unread in its buffers so much later than we would.
USER_TIMEOUT_GRACE_S = 1.0
# After the last answers, so long for clients to take them.
LAST_ANSWERS_S = 2.0
# In a stop, so long each listener accepts the clients that wait there, and at most BACKLOG of them.
LAST_ACCEPTS_S = 1.0
# Errors of accept(2) for want of descriptors or memory, which may pass; how soon it is tried again.
WANT_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
WANT_RETRY_S = 0.05
# Descriptors beside the connections: listeners, the loop's own, logs.
OTHER_DESCRIPTORS = 64


class Counted(Protocol):
    """A part of the process that counts."""

    def counters(self) -> dict[str, int]:
        """What is held now and was counted since the start, by name."""


class GatewayProcess:
    """The gateway in the running loop, as `settings` say.

    dialer: makes the connections to job servers, where that is not done by sockets; such a process does not listen.
    """

    def __init__(self, settings: Settings, dialer: Dialer | None = None) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.wheel = DeadlineWheel(TICK_S, self.loop.time())
        self.turn = Turn(self.loop)
        self.counted_in = Counters()
        self.budget = ByteBudget(settings.max_held_bytes, self.counted_in)
        self.resolver = Resolver(self.loop)
        self.poller: TurnPoller | None = None
        if dialer is None:
            self.poller = TurnPoller(self.loop, self.turn)
            dialer = Dialer(self.loop, self.poller)
        self.pool = Pool(
            self.loop,
            self.wheel,
            settings.server,
            connections_per_server=settings.connections_per_server,
            max_result_bytes=settings.max_result_bytes,
            budget=self.budget,
            turn=self.turn,
            balance=settings.balance,
            function_servers=_servers_by_function(settings),
            cancel_abandoned=settings.cancel_abandoned,
            status_interval_s=settings.status_interval_s,
            check_interval_s=settings.server_check_interval_s,
            tls_context=_tls_context(settings),
            resolver=self.resolver,
            dialer=dialer,
        )
        self.admission = Admission(
            functions=[name.encode() for name in settings.function],
            max_jobs=settings.max_jobs,
            max_function_jobs=[(bound.name.encode(), bound.jobs) for bound in settings.max_function_jobs],
            max_queued=[(bound.name.encode(), bound.jobs) for bound in settings.max_queued],
            require_worker=settings.require_worker,
            counters=self.counted_in,
        )
        self.gateway = Gateway(
            self.pool,
            self.admission,
            content_type=settings.content_type.encode("latin-1"),
            job_timeout_s=settings.job_timeout_s,
            max_function_bytes=settings.max_function_bytes,
            refuse_client_unique=settings.refuse_client_unique,
            plugin_compat=settings.plugin_compat,
        )
        self.builder = ResponseBuilder(empty_error_bodies=settings.plugin_compat, now_s=time.time())
        self.http = HttpServer(
            self.loop,
            self.wheel,
            Limits(settings),
            self.gateway,
            self.builder,
            self.budget,
            self.turn,
            self.counted_in,
            answers_half_closed=settings.half_closed == "answer",
        )
        self._events_at_s = self.loop.time() + logs.INTERVAL_S
        self._sockets: list[socket.socket] = []
        # Those of them that are files.
        self._unix_sockets: list[UnixSocket] = []
        self._listeners: list[Listener] = []
        # Connections that could not be served and of which the log has told.
        self._told_unserved = 0
        self._next_tick: asyncio.TimerHandle | None = None
        # Deadlines that are due are left for the next turn of the loop.
        self._catching_up = False

    @property
    def addresses(self) -> list[Address | UnixAddress]:
        """Where it listens, with the ports that the kernel chose."""
        return [_address_of(bound) for bound in self._sockets]

    def counters(self) -> dict[str, int]:
        """What is held now and was counted since the start, by part and name."""
        parts: dict[str, Counted] = {
            "http": self.http,
            "gateway": self.gateway,
            "admission": self.admission,
            "pool": self.pool,
            "budget": self.budget,
        }
        return {
            f"{part}.{name}": count for part, counted in parts.items() for name, count in counted.counters().items()
        }

    async def start(self) -> None:
        """Listen, once every job server was tried. Raises StartError."""
        try:
            for address in self.settings.listen:
                if isinstance(address, UnixAddress):
                    self._sockets.append(self._bind_unix(address))
                else:
                    self._sockets.append(await self._bind(address))
            self._tick()
            await self.pool.start()
            for bound in self._sockets:
                self._listeners.append(self._listen(bound))
        except BaseException:
            await self.close()
            raise

    async def _bind(self, address: Address) -> socket.socket:
        """A socket bound to the first address of a host, and not listening yet. Raises StartError."""

        def tell(reason: str) -> None:
            logger.warning("cannot listen on %s yet: %s", address, reason)

        try:
            found = await self.resolver.resolve(address.host, tell)
            return _bound_socket(found[0], address.port, self.settings.write_timeout_s)
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error

    def _bind_unix(self, address: UnixAddress) -> socket.socket:
        """A unix socket, not listening yet. Raises StartError."""
        owner = owner_numbers(self.settings.socket_owner)
        self._unix_sockets.append(bind_unix_socket(address, self.settings.socket_mode, owner))
        return self._unix_sockets[-1].socket

    def _listen(self, bound: socket.socket) -> Listener:
        if self.poller is None:
            raise StateError("a process whose connections are made by others does not listen")
        try:
            bound.listen(BACKLOG)
            return Listener(self.poller, bound, self.http.connection, self.counted_in)
        except OSError as error:
            raise StartError(f"cannot listen on {_address_of(bound)}: {error.strerror}") from error

    async def drain(self) -> None:
        """Accept no more, answer what is in flight within the drain timeout, then the rest as well as it can; close."""
        for listener in self._listeners:
            listener.stop()
        # Nobody connects any more who would be reset once the listener is closed.
        self._remove_unix_sockets()
        self.http.drain()
        ends_s = self.loop.time() + LAST_ACCEPTS_S
        await asyncio.gather(*(self._accept_waiting(listener, ends_s) for listener in self._listeners))
        self._listeners.clear()
        await self._connections_closed(self.settings.drain_timeout_s)
        # The requests of jobs that have not ended are answered 502 or 503.
        await self.pool.close()
        self.http.refuse_unfinished()
        await self._connections_closed(LAST_ANSWERS_S)
        await self.close()

    async def _accept_waiting(self, listener: Listener, ends_s: float) -> None:
        """Accept the clients that wait at a socket, until none does, and close it: the kernel resets any others.

        Each is served one request. Clients that connect meanwhile are accepted as well, up to `ends_s` and BACKLOG.
        """
        with contextlib.closing(listener):
            for _ in range(BACKLOG):
                try:
                    if not listener.accept_waiting(self.http.late_connection):
                        break
                    # In a turn of the loop the client's bytes are read: none that has sent a request is idle then.
                    await asyncio.sleep(0)
                except OSError as error:
                    # Any other error is that client's alone (accept(2)).
                    if error.errno in WANT_ERRORS:
                        await asyncio.sleep(WANT_RETRY_S)
                if self.loop.time() >= ends_s:
                    break

    async def close(self) -> None:
        """Close everything at once."""
        self._remove_unix_sockets()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for bound in self._sockets:
            bound.close()
        await self.pool.close()
        self.http.abort()
        if self._next_tick is not None:
            self._next_tick.cancel()
        # One turn of the loop, in which closed streams tell of their end.
        await asyncio.sleep(0)
        if self.poller is not None:
            self.poller.close()

    def _remove_unix_sockets(self) -> None:
        for unix_socket in self._unix_sockets:
            unix_socket.remove()
        self._unix_sockets.clear()

    async def _connections_closed(self, timeout_s: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.http.emptied.wait(), timeout_s)

    def _tick(self) -> None:
        self._next_tick = self.loop.call_later(TICK_S, self._tick)
        now_s = self.loop.time()
        self.builder.refresh(time.time())
        self.wheel.advance(now_s)
        if not self._catching_up:
            self._fire()
        for listener in self._listeners:
            listener.resume()
        if now_s >= self._events_at_s:
            self._events_at_s = now_s + logs.INTERVAL_S
            self.log_refusals()

    def _fire(self) -> None:
        fired = self.wheel.fire(DEADLINES_PER_TURN)
        ended = self.http.relieve(DEADLINES_PER_TURN)
        self._catching_up = DEADLINES_PER_TURN in (fired, ended)
        if self._catching_up:
            # The clients that are not late have their turn first.
            self.loop.call_soon(self._fire)

    def log_refusals(self) -> None:
        """Log what was refused since the last time: a line a kind, with how often and one example."""
        for kind, (count, example, peer) in self.http.take_events().items():
            logger.warning(
                "refused %d times: %s; for example %s after '%s'",
                count,
                kind,
                peer or "a unix socket",
                example.decode("latin-1"),
                extra={"about": kind},
            )
        unserved = self.http.counters()["connections_unserved"]
        if unserved > self._told_unserved:
            closed = unserved - self._told_unserved
            logger.warning("closed %d connections for which no file descriptor or no memory was left", closed)
            self._told_unserved = unserved


def run(settings: Settings) -> int:
    """Serve until a signal stops it; returns the exit code. Raises StartError."""
    signals.prepare()
    log = logs.configure()
    make_room_for_connections(settings)
    try:
        return uvloop.run(_serve(settings, log))
    finally:
        log.finish()


async def _serve(settings: Settings, log: logs.EventLog) -> int:
    log.follow(asyncio.get_running_loop())
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            # The operator has asked twice.
            os._exit(1)
        stopping.set()

    handled = signals.Signals(stop, lambda name: logger.info("%s has no effect", name))
    try:
        return await _serve_until(stopping, settings)
    finally:
        handled.close()


async def _serve_until(stopping: asyncio.Event, settings: Settings) -> int:
    process = GatewayProcess(settings)
    starting = asyncio.create_task(process.start())
    stop_asked = asyncio.create_task(stopping.wait())
    await asyncio.wait((starting, stop_asked), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 0
    if starting.exception() is not None:
        stop_asked.cancel()
    await starting
    # The objects that live now live to the end: the collector need not look at them again.
    gc.collect()
    gc.freeze()
    give_memory_back()
    logger.info("gatewayx %s listens on %s", __version__, ", ".join(_shown(address) for address in process.addresses))
    await stop_asked
    logger.info("stopping: answering what is in flight, for up to %g s", settings.drain_timeout_s)
    await process.drain()
    logger.info("stopped")
    return 0


def _servers_by_function(settings: Settings) -> list[tuple[bytes, list[int]]]:
    """Which of the configured job servers each function is mapped to."""
    numbers: dict[bytes, list[int]] = {}
    for entry in settings.function_server:
        numbers.setdefault(entry.name.encode(), []).append(settings.server.index(entry.server))
    return list(numbers.items())


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    """For the job servers with TLS; None without any. Raises StartError."""
    if not any(server.tls for server in settings.server):
        return None
    from gatewayx.gearman.tls import client_context

    return client_context(settings.server_ca, settings.server_certificate, settings.server_key)


def make_room_for_connections(settings: Settings) -> None:
    """Let as many files be open as the bounds need, or say that the hard limit is in the way."""
    # The addresses of names with each:// may fill what is left.
    servers = MOST_SERVERS if any(server.each for server in settings.server) else len(settings.server)
    needed = (
        settings.max_connections
        + MAX_REFUSED_CONNECTIONS
        # And one text connection to each job server.
        + servers * (settings.connections_per_server + 1)
        + 2 * len(settings.listen)
        # Each unix socket has a lock.
        + sum(isinstance(address, UnixAddress) for address in settings.listen)
        + OTHER_DESCRIPTORS
    )
    possible = raise_open_files(needed)
    if possible < needed:
        logger.warning(
            "max-connections %d needs %d open files, but the hard limit is %d",
            settings.max_connections,
            needed,
            possible,
        )


def _address_of(bound: socket.socket) -> Address | UnixAddress:
    """Where a socket is bound."""
    name = bound.getsockname()
    return UnixAddress(name) if bound.family == socket.AF_UNIX else Address(*name[:2])


def _shown(address: Address | UnixAddress) -> str:
    return str(address) if isinstance(address, UnixAddress) else f"http://{address}"


def _bound_socket(host: NumericHost, port: int, write_timeout_s: float) -> socket.socket:
    """A socket bound to an address and not listening yet. Raises OSError.

    What is set here the kernel sets for every connection that is accepted (tcp(7)): answers that lie in its buffers
    and are not read for write_timeout_s end the connection, even one that is closed on our side.
    """
    bound = socket.socket(host.family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_NOTSENT_BYTES)
        user_timeout_s = write_timeout_s + USER_TIMEOUT_GRACE_S
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(user_timeout_s * 1000))
        if host.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((host.host, port, 0, host.scope))
        else:
            bound.bind((host.host, port))
    except BaseException:
        bound.close()
        raise
    bound.setblocking(False)
    return bound
