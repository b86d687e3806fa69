"""The admin process: what an operator sees of the gateway, whatever its worker processes are doing.

It is forked by the master as they are, and obeys it alone. It answers from the memory that they share and from text
connections of its own to the job servers, so nobody it depends on is in its way: a worker process that hangs, a job
server that does not answer. It ends last, and at once when the master is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import socket
import time
from typing import Any

import msgspec
import uvloop

from gatewayx.admin.checks import Health
from gatewayx.admin.exposition import Exposition
from gatewayx.admin.metrics import GatewayFamilies
from gatewayx.admin.request_metrics import RequestFamilies
from gatewayx.admin.site import WANTED_HEADERS, Site
from gatewayx.config.kinds import KIBIBYTE, MEBIBYTE
from gatewayx.config.settings import Settings
from gatewayx.config.tokens import TokenEntry
from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.metrics import BOUNDS_S
from gatewayx.core.turns import Turn
from gatewayx.gateway import openapi
from gatewayx.gearman.pool import Pool
from gatewayx.http.connection import HttpServer
from gatewayx.http.limits import Limits
from gatewayx.http.outcomes import OUTCOMES
from gatewayx.http.python_handler import PythonHandler
from gatewayx.http.response import ResponseBuilder
from gatewayx.net.dialing import Dialer
from gatewayx.net.listener import Listener
from gatewayx.net.names import Resolver
from gatewayx.net.poller import TurnPoller
from gatewayx.net.sockets import give_memory_back
from gatewayx.server import logs, reloading
from gatewayx.server.admin_view import Viewer
from gatewayx.server.certificates import TlsContexts
from gatewayx.server.places import Places
from gatewayx.server.tls_files import TlsFiles
from gatewayx.server.token_file import NO_TOKENS
from gatewayx.server.worker import READY, Control, obey

TICK_S = 0.1
# How often the checks are evaluated while nobody asks.
LOOK_S = 0.5
# Deadlines that fire in one turn of the loop.
DEADLINES_PER_TURN = 32
# What the clients of the admin address may have together. An exposition of all functions takes a few of it.
MAX_HELD_BYTES = 32 * MEBIBYTE
# As that of udevd or auditd; it takes CAP_SYS_NICE.
NICENESS = -10
# After it is told to end, so long for the answers that it has begun.
LAST_ANSWERS_S = 0.5

# Bounds of the admin address's own: those who ask are few and near.
LIMITS = {
    "max_connections": 256,
    "max_connections_per_address": 0,
    "max_pipelined": 8,
    "max_target_bytes": 2 * KIBIBYTE,
    "max_header_bytes": 8 * KIBIBYTE,
    "max_headers": 64,
    "max_body_bytes": 4 * KIBIBYTE,
    "max_chunk_extensions_bytes": KIBIBYTE,
    "first_byte_timeout_s": 5.0,
    "header_timeout_s": 5.0,
    "body_timeout_s": 5.0,
    "keepalive_timeout_s": 30.0,
    "write_timeout_s": 10.0,
}


class AdminProcess:
    """The admin address in the running loop.

    bound: the socket where it answers, which listens. places: what the processes share. tls: the master's, of which
    certificates are told, and those for job servers used. tokens: those that are told of.
    """

    def __init__(
        self,
        settings: Settings,
        bound: socket.socket,
        places: Places,
        log: logs.EventLog,
        tls: TlsContexts,
        tokens: tuple[TokenEntry, ...] = NO_TOKENS,
    ) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self._log = log
        self._board = places.board
        self.wheel = DeadlineWheel(TICK_S, self.loop.time())
        turn = Turn(self.loop)
        self.poller = TurnPoller(self.loop, turn)
        counters = Counters()
        budget = ByteBudget(MAX_HELD_BYTES, counters)
        # Of the job servers the worker processes tell the log, which use them.
        logging.getLogger("gatewayx.gearman").setLevel(logging.CRITICAL)
        self._askers = len(places) + 1
        self._tls = tls
        self.pool = Pool(
            self.loop,
            self.wheel,
            settings.server,
            max_result_bytes=KIBIBYTE,
            budget=budget,
            turn=turn,
            resolver=Resolver(self.loop),
            dialer=Dialer(self.loop, self.poller),
            **self._upkeep(settings),
        )
        self.viewer = Viewer(places, self.pool, settings, tokens, tls.files)
        self.health = Health(self._board, settings.ready_requires)
        rows = places.metrics()
        self._metrics = Exposition(
            [GatewayFamilies(self.viewer.view), RequestFamilies(rows, OUTCOMES, BOUNDS_S)], time.monotonic
        )
        self.site = Site(self.viewer.view, self.health, self._metrics.answer, settings.admin_host, openapi.body)
        self.builder = ResponseBuilder(now_s=time.time())
        self.http = HttpServer(
            self.loop,
            self.wheel,
            Limits(msgspec.structs.replace(settings, **LIMITS)),
            PythonHandler(self.site.respond, WANTED_HEADERS),
            self.builder,
            budget,
            turn,
            counters,
        )
        self._listener = Listener(self.poller, bound, self.http.connection, counters)
        self._look_s = float("-inf")
        self._next_tick: asyncio.TimerHandle | None = None
        self._starting: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Answer from now on, and begin to ask the job servers, which nothing waits for."""
        asking = self.loop.create_task(self._ask_job_servers())
        self._starting = [asking, self.loop.create_task(self._prepare(asking))]
        self._tick()

    async def _ask_job_servers(self) -> None:
        await self.pool.start()
        self.viewer.asked_s = time.monotonic() + LOOK_S

    async def _prepare(self, asking: asyncio.Task[None]) -> None:
        """Have most lines of /metrics composed when it is asked for first, which would take a tenth of a second."""
        for _ in self._metrics.prepare():
            await asyncio.sleep(0)
        await asyncio.wait((asking,))
        # The first answers come, with functions that have workers.
        await asyncio.sleep(LOOK_S)
        for _ in self._metrics.prepare():
            await asyncio.sleep(0)

    def change_tokens(self, tokens: tuple[TokenEntry, ...]) -> None:
        """Tell of these tokens from now on."""
        self.viewer.tokens = tokens

    def change_tls(self, files: TlsFiles) -> None:
        """Go on with what these files of TLS hold. Raises StartError, and then nothing has changed."""
        before = self._tls.job_servers
        self._tls.change(files)
        self.viewer.tls = files
        if self._tls.job_servers is not before:
            self.pool.change_tls(self._tls.job_servers)

    async def reconfigure(self, settings: Settings, tokens: tuple[TokenEntry, ...] | None = None) -> None:
        """Go on with the live ones of these settings. Raises StartError."""
        if tokens is not None:
            self.change_tokens(tokens)
        settings = reloading.with_live_of(self.settings, settings)
        self.settings = self.viewer.settings = settings
        self._log.change(settings.log_format)
        self.health.change(settings.ready_requires)
        self.site.names = settings.admin_host
        await self.pool.change(
            settings.server,
            max_result_bytes=KIBIBYTE,
            balance=settings.balance,
            function_servers=(),
            cancel_abandoned=False,
            **self._upkeep(settings),
        )

    async def close(self) -> None:
        """Answer what has begun, and close everything."""
        self._listener.stop()
        self.http.drain()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.http.emptied.wait(), LAST_ANSWERS_S)
        await self.abort()

    async def abort(self) -> None:
        """Close everything at once."""
        self._listener.stop()
        self.http.abort()
        for task in self._starting:
            task.cancel()
        await self.pool.close()

    def _upkeep(self, settings: Settings) -> dict[str, Any]:
        """How text connections are kept; there are none for jobs."""
        return {
            "connections_per_server": 0,
            "status_interval_s": settings.status_interval_s,
            "askers": self._askers,
            "check_interval_s": settings.server_check_interval_s,
            "tls_context": self._tls.job_servers,
        }

    def _tick(self) -> None:
        now_s = self.loop.time()
        try:
            self._board.admin.beat(time.monotonic())
            self.builder.refresh(time.time())
            self.wheel.advance(now_s)
            self.wheel.fire(DEADLINES_PER_TURN)
            self.http.relieve(DEADLINES_PER_TURN)
            self._listener.resume()
            self._log.tick()
            self._board.add_dropped(self._log.take_dropped(), of_admin=True)
            self.viewer.look()
            if now_s - self._look_s >= LOOK_S:
                self._look_s = now_s
                self.health.look(self.viewer.view())
        finally:
            # While nobody asks nothing is due before the next look.
            self._next_tick = self.loop.call_later(TICK_S if self.http.connections else LOOK_S, self._tick)


def run(
    settings: Settings,
    bound: socket.socket,
    places: Places,
    connection: socket.socket,
    last_words: int,
    log: logs.EventLog,
    tls: TlsContexts,
    tokens: tuple[TokenEntry, ...] = NO_TOKENS,
) -> int:
    """Answer until the master says that it ends, or is gone; returns the exit code.

    bound, places, tls and tokens: as in AdminProcess. connection: with the master, of packets, non-blocking.
    last_words: a descriptor for the traceback of a crash.
    """
    faulthandler.enable(file=last_words)
    with contextlib.suppress(OSError):
        # It uses little, and is asked while others use all there is. Who may not do this goes on without.
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    try:
        return uvloop.run(_answer(settings, bound, places, connection, log, tls, tokens))
    finally:
        log.finish()


async def _answer(
    settings: Settings,
    bound: socket.socket,
    places: Places,
    connection: socket.socket,
    log: logs.EventLog,
    tls: TlsContexts,
    tokens: tuple[TokenEntry, ...],
) -> int:
    control = Control(connection, settings, tokens, tls.files)
    process = AdminProcess(settings, bound, places, log, tls, tokens)
    process.start()
    gc.collect()
    gc.freeze()
    give_memory_back()
    control.tell(READY)
    await obey(control, "the admin process", process)
    await (process.abort() if control.orphaned else process.close())
    return int(control.orphaned)
