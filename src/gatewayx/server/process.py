"""One process: its loop, its listeners, its connections to the job servers, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from gatewayx.address import Address, ListenAddress, UnixAddress
from gatewayx.core.budget import ByteBudget
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.turns import Turn
from gatewayx.errors import StartError, StateError
from gatewayx.gateway.access import Access
from gatewayx.gateway.admission import Admission
from gatewayx.gateway.background_jobs import BackgroundJobs
from gatewayx.gateway.gateway import Gateway
from gatewayx.gateway.job_ids import JobIds
from gatewayx.gateway.kept_jobs import KeptJobs
from gatewayx.gateway.kept_room import KeptRoom
from gatewayx.gateway.keys import Keys
from gatewayx.gearman.pool import Pool
from gatewayx.http.connection import HttpServer
from gatewayx.http.limits import Limits
from gatewayx.http.records import Records
from gatewayx.http.response import ResponseBuilder
from gatewayx.net.dialing import Dialer
from gatewayx.net.names import Resolver
from gatewayx.net.networks import Networks
from gatewayx.net.open_files import raise_open_files
from gatewayx.net.poller import TurnPoller
from gatewayx.net.tls import TlsServer
from gatewayx.server import logs
from gatewayx.server.access import made_tokens, rate_limits, trusted_proxies
from gatewayx.server.access_log import AccessLog
from gatewayx.server.certificates import TlsContexts
from gatewayx.server.entries import Entries, proxy_server
from gatewayx.server.listeners import TICK_S, BoundSockets, Listeners
from gatewayx.server.open_files import open_files_for
from gatewayx.server.output import AccessOutput
from gatewayx.server.parts import (
    answers_half_closed,
    for_admission,
    for_gateway,
    for_kept,
    for_keys,
    origins,
    servers_by_function,
)
from gatewayx.server.places import Places, State
from gatewayx.server.relay import Relay
from gatewayx.server.reloading import id_keys_of, read_tls_files, with_live_of
from gatewayx.server.token_file import NO_TOKENS, read_tokens

if TYPE_CHECKING:
    from gatewayx.config.settings import Settings
    from gatewayx.config.tokens import TokenEntry
    from gatewayx.server.relay_sockets import RelaySockets
    from gatewayx.server.tls_files import TlsFiles

logger = logging.getLogger("gatewayx")

# Deadlines that fire in one turn of the loop, and slow clients that are ended for want of room; those of ten thousand
# clients that are late together take several.
DEADLINES_PER_TURN = 32
# A tick that is so late tells that the process stood still, and could hear nobody: that time counts for no deadline.
STANDSTILL_S = 0.2
# While nothing happens a tick comes in the place of so many: the row of a place tells that its loop turns.
REST_TICKS = 5
# In a stop, how often a process that is done looks whether the others are.
OTHERS_DONE_S = 0.02
# After the last answers, so long for clients to take them.
LAST_ANSWERS_S = 2.0
# The part of the drain timeout over which it closes idle connections, if they are many.
IDLE_PART = 0.5


class Counted(Protocol):
    """A part of the process that counts."""

    def counters(self) -> dict[str, int]:
        """What is held now and was counted since the start, by name."""


class GatewayProcess:
    """The gateway in the running loop, as `settings` say.

    dialer: makes the connections to job servers, where that is not done by sockets; such a process does not listen.
    sockets: the gateway's; None lets the process bind its own. places: what the worker processes share; None if this
    one is alone. place: its own among them. log: which tells at ticks what it has to tell later.
    tls: made of the files of TLS; None lets the process read them. relay_sockets: on which the worker processes of the
    gateway reach each other; None if this one is alone. tokens: of the file that the settings name; None lets the
    process read it.
    """

    def __init__(
        self,
        settings: Settings,
        dialer: Dialer | None = None,
        *,
        sockets: BoundSockets | None = None,
        places: Places | None = None,
        place: int = 0,
        log: logs.EventLog | None = None,
        tls: TlsContexts | None = None,
        relay_sockets: RelaySockets | None = None,
        tokens: tuple[TokenEntry, ...] | None = None,
    ) -> None:
        self._log = log
        self.settings = settings
        self._tokens = _tokens_of(settings) if tokens is None else tokens
        self._contexts = TlsContexts(settings, read_tls_files(settings)) if tls is None else tls
        self.loop = asyncio.get_running_loop()
        self.wheel = DeadlineWheel(TICK_S, self.loop.time())
        self.turn = Turn(self.loop)
        self.places = places_for(settings, 1) if places is None else places
        self.place = place
        self.places[place].begin()
        self.counted_in = self.places[place].counters()
        self.shared = self.places.shared(place)
        self.budget = ByteBudget(settings.max_held_bytes, self.counted_in, self.shared)
        self.resolver = Resolver(self.loop)
        self.poller: TurnPoller | None = None
        if dialer is None:
            self.poller = TurnPoller(self.loop, self.turn)
            dialer = Dialer(self.loop, self.poller)
        self.pool = Pool(
            self.loop,
            self.wheel,
            settings.server,
            budget=self.budget,
            turn=self.turn,
            resolver=self.resolver,
            dialer=dialer,
            identity_key=self.places.identity_key,
            **self._for_pool(settings),
        )
        self.admission = Admission(counters=self.counted_in, shared=self.shared, **for_admission(settings))
        self.limits = Limits(settings)
        self.relay: Relay | None = None
        if relay_sockets is not None:
            self.relay = Relay(
                self.wheel,
                self.poller,
                self.budget,
                self.counted_in,
                self.places,
                place,
                relay_sockets,
                settings.max_relayed,
                self.limits,
            )
        self.rates = self.places.rates(self.counted_in)
        self.records = Records(self.places.metrics(place), self.turn, server_timing=settings.server_timing)
        self.ids = JobIds(self.places.id_keys)
        kept_room = KeptRoom(self.budget, self.shared, self.counted_in)
        self.kept = KeptJobs(
            self.ids,
            self.wheel,
            kept_room,
            self.shared,
            self.counted_in,
            self.places,
            place,
            **for_kept(settings),
        )
        self.keys = Keys(
            kept_room, self.kept, self.shared, self.counted_in, self.places.identity_key, **for_keys(settings)
        )
        self.background_jobs = BackgroundJobs(
            self.pool,
            self.ids,
            self.wheel,
            self.rates,
            self.counted_in,
            self.places,
            place,
            settings.max_status_polls,
        )
        self.gateway = Gateway(
            self.pool,
            self.admission,
            records=self.records,
            access=Access(**self._for_access(settings)),
            owners=self.relay,
            kept=self.kept,
            background_jobs=self.background_jobs,
            keys=self.keys,
            **for_gateway(settings),
        )
        self.builder = ResponseBuilder(empty_error_bodies=settings.plugin_compat, now_s=time.time())
        self.http = HttpServer(
            self.loop,
            self.wheel,
            self.limits,
            self.gateway,
            self.builder,
            self.budget,
            self.turn,
            self.counted_in,
            answers_half_closed=answers_half_closed(settings),
            shared=self.shared,
            relay_peers=None if relay_sockets is None else relay_sockets.is_ours,
            records=self.records,
            rates=self.rates,
            proxies=trusted_proxies(settings),
        )
        self.tls: TlsServer | None = None
        self.certificates = self._contexts.clients
        if self.certificates is not None and self.poller is not None:
            self.tls = TlsServer(self.poller, self.counted_in, self.certificates.context, settings.max_handshakes)
        self.proxies = proxy_server(settings, self.wheel, self.counted_in)
        self.access_log = AccessLog(self.counted_in)
        self.access_output = AccessOutput(self.access_log.batch, settings.access_log)
        self._set_access_log(settings)
        self._events_at_s = self.loop.time() + logs.INTERVAL_S
        self._sockets = sockets
        self.relay_sockets = relay_sockets
        self._listeners: Listeners | None = None
        # Connections that could not be served and of which the log has told.
        self._told_unserved = 0
        self._next_tick: asyncio.TimerHandle | None = None
        # By the loop's time: when that is due; how late it tells of a standstill, and how long these were in all.
        self._tick_due_s = self.loop.time()
        self.standstill_s = STANDSTILL_S
        self._stood_still_s = 0.0
        # How many turns the sockets had had at the last tick.
        self._turns = 0
        # Deadlines that are due are left for the next turn of the loop.
        self._catching_up = False

    @property
    def addresses(self) -> list[Address | ListenAddress | UnixAddress]:
        """Where it listens, with the ports that the kernel chose."""
        return [] if self._listeners is None else self._listeners.addresses

    def counters(self) -> dict[str, int]:
        """What is held now and was counted since the start, by part and name."""
        parts: dict[str, Counted] = {
            "http": self.http,
            "gateway": self.gateway,
            "admission": self.admission,
            "pool": self.pool,
            "budget": self.budget,
            "kept": self.kept,
            "keys": self.keys,
            "background_jobs": self.background_jobs,
        }
        if self.relay is not None:
            parts["relay"] = self.relay
        if self.tls is not None:
            parts["tls"] = self.tls
        if self.proxies is not None:
            parts["proxied"] = self.proxies
        return {
            f"{part}.{name}": count for part, counted in parts.items() for name, count in counted.counters().items()
        }

    async def start(self) -> None:
        """Listen, once every job server was tried. Raises StartError."""
        if self.poller is None:
            raise StateError("a process whose connections are made by others does not listen")
        try:
            if self._sockets is None:
                self._sockets = BoundSockets(1)
                for address in self.settings.listen:
                    await self._bind(self._sockets, address)
            self._listeners = Listeners(
                self._sockets,
                self.poller,
                self.http,
                self.counted_in,
                self.places,
                self.place,
                Entries(self.tls, self.proxies, self.http.late_connection),
                self.relay_sockets,
            )
            self._tick()
            await self.pool.start()
            self._listeners.listen()
        except BaseException:
            await self.close()
            raise

    async def _bind(self, sockets: BoundSockets, address: Address | ListenAddress | UnixAddress) -> None:
        def tell(reason: str) -> None:
            logger.warning("cannot listen on %s yet: %s", address, reason)

        if isinstance(address, UnixAddress):
            sockets.bind_file(address, self.settings)
            return
        try:
            hosts = await self.resolver.resolve(address.host, tell)
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error
        sockets.bind(address, hosts[0], self.settings)

    def change_tokens(self, tokens: tuple[TokenEntry, ...]) -> None:
        """Go on with these tokens."""
        self._tokens = tokens
        self.gateway.access.change(**self._for_access(self.settings))

    def change_tls(self, files: TlsFiles) -> None:
        """Go on with what these files of TLS hold. Raises StartError, and then nothing has changed.

        Whoever comes from now on is shown that; connections that are there go on.
        """
        job_servers = self._contexts.job_servers
        self._contexts.change(files)
        self._change_tls_server()
        if self._contexts.job_servers is not job_servers:
            self.pool.change_tls(self._contexts.job_servers)

    def _change_tls_server(self) -> None:
        if self.tls is not None and self.certificates is not None:
            self.tls.change(self.certificates.context, self.settings.max_handshakes)

    async def reconfigure(self, settings: Settings, tokens: tuple[TokenEntry, ...] | None = None) -> None:
        """Go on with the live ones of these settings. Raises StartError, and then nothing has changed.

        What is under way keeps deadlines that it has, and its job server. Returns once the job servers are those of the
        settings; not to be called before another call has returned.
        """
        settings = with_live_of(self.settings, settings)
        raise_open_files(open_files_for(settings, len(self.places)))
        if tokens is None:
            # No master has read the files.
            self.change_tls(read_tls_files(settings))
            self.places.id_keys = id_keys_of(settings) or (self.places.id_key,)
        self._tokens = _tokens_of(settings) if tokens is None else tokens
        self.settings = settings
        self.ids.change(self.places.id_keys)
        self.limits.change(settings)
        self.http.change(answers_half_closed(settings), trusted_proxies(settings))
        self.builder.empty_error_bodies = settings.plugin_compat
        self.records.server_timing = settings.server_timing
        self.budget.change(settings.max_held_bytes)
        self.admission.change(**for_admission(settings))
        self.gateway.access.change(**self._for_access(settings))
        self.gateway.change(**for_gateway(settings))
        self.kept.change(**for_kept(settings))
        self.keys.change(**for_keys(settings))
        self.background_jobs.change(settings.max_status_polls)
        self._change_tls_server()
        if self.proxies is not None:
            self.proxies.change(Networks(settings.trusted_proxy), settings.first_byte_timeout_s)
        if self.relay is not None:
            self.relay.max_relayed = settings.max_relayed
        if self._sockets is not None:
            self._sockets.set_write_timeout(settings.write_timeout_s)
        if self._log is not None:
            self._log.change(settings.log_format)
        if settings.access_log is None:
            self.records.log = None
        await self.access_output.change(settings.access_log)
        self._set_access_log(settings)
        await self.pool.change(settings.server, **self._for_pool(settings))

    async def drain(self) -> None:
        """Accept no more, answer what is in flight within the drain timeout, then the rest as well as it can; close."""
        self.kept.stopping = True
        if self._listeners is not None:
            self._listeners.stop()
        self.http.drain(self.settings.drain_timeout_s * IDLE_PART)
        if self.relay is not None:
            self.relay.drain()
        if self.proxies is not None:
            self.proxies.drain()
        if self._listeners is not None:
            await self._listeners.finish()
        drained_s = self.loop.time() + self.settings.drain_timeout_s
        await self._connections_closed(self.settings.drain_timeout_s)
        await self._kept_ended(drained_s)
        await self._others_done(drained_s)
        # The requests of jobs that have not ended are answered 502 or 503.
        await self.pool.close()
        self.http.refuse_unfinished()
        await self._connections_closed(LAST_ANSWERS_S)
        await self.close()

    async def close(self) -> None:
        """Close everything at once."""
        if self._listeners is not None:
            self._listeners.close()
        elif self._sockets is not None:
            self._sockets.close()
        await self.pool.close()
        self.http.abort()
        if self.proxies is not None:
            self.proxies.abort()
        if self.relay is not None:
            self.relay.drain()
        if self.poller is not None:
            self.poller.before_turn = None
        if self._next_tick is not None:
            self._next_tick.cancel()
        # One turn of the loop, in which closed streams tell of their end.
        await asyncio.sleep(0)
        if self.poller is not None:
            self.poller.close()
        await self.access_output.finish()

    async def _kept_ended(self, ends_s: float) -> None:
        """Return once no job is left that outlives its request, or at this time of the loop; those left are lost."""
        with contextlib.suppress(asyncio.TimeoutError):
            for jobs in (self.kept, self.keys):
                await asyncio.wait_for(jobs.all_ended.wait(), max(0.0, ends_s - self.loop.time()))

    async def _others_done(self, ends_s: float) -> None:
        """Return once no other process has clients whose requests this one may own, or at this time of the loop."""
        if self.relay is None or self._listeners is None:
            return
        self.places[self.place].state = State.DONE
        while self.loop.time() < ends_s and not self._listeners.others_done():  # noqa: ASYNC110 (other processes set no event)
            await asyncio.sleep(OTHERS_DONE_S)

    async def _connections_closed(self, timeout_s: float) -> None:
        ends_s = self.loop.time() + timeout_s
        # Whoever is passed on by a proxy is a client from then on.
        parts = (self.http,) if self.proxies is None else (self.proxies, self.http)
        with contextlib.suppress(asyncio.TimeoutError):
            for part in parts:
                await asyncio.wait_for(part.emptied.wait(), max(0.0, ends_s - self.loop.time()))

    def _for_pool(self, settings: Settings) -> dict[str, Any]:
        """What the pool is made with and changed to."""
        return {
            "connections_per_server": settings.connections_per_server,
            "max_result_bytes": settings.max_result_bytes,
            "balance": settings.balance,
            "function_servers": servers_by_function(settings),
            "cancel_abandoned": settings.cancel_abandoned,
            "status_interval_s": settings.status_interval_s,
            "askers": len(self.places),
            "check_interval_s": settings.server_check_interval_s,
            "tls_context": self._contexts.job_servers,
        }

    def _for_access(self, settings: Settings) -> dict[str, Any]:
        """Who may; a part that is left out lets everybody."""
        tokens = None
        if settings.tokens is not None:
            tokens = made_tokens(settings, self._tokens, self.shared, self.records.metrics, self.rates)
        return {
            "origins": origins(settings),
            "tokens": tokens,
            "rates": rate_limits(settings, self._tokens, self.rates),
        }

    def _set_access_log(self, settings: Settings) -> None:
        self.access_log.change(settings.access_log_sample, with_unique=settings.access_log_unique)
        self.records.log = None if self.access_output.path is None else self.access_log

    def _tick(self, *, begins_turn: bool = False) -> None:
        now_s = self.loop.time()
        rest_s = TICK_S
        try:
            self._do_ticks_work(now_s, begins_turn=begins_turn)
            rest_s = self._rest_s()
        finally:
            self._next_tick = self.loop.call_later(rest_s, self._tick)
            self._tick_due_s = self.loop.time() + rest_s
            if self.poller is not None:
                # The turn of the sockets that ends a rest begins with a tick, and so does one that comes when the tick
                # is overdue: the deadlines that are armed in it count from there.
                after_s = 0.0 if rest_s > TICK_S else rest_s
                self.poller.before_turn = self._tick_at_once
                self.poller.before_turn_from_ns = time.monotonic_ns() + int(after_s * 1e9)

    def _rest_s(self) -> float:
        """How soon the next tick is to be: while nobody asks anything, less often."""
        if self.poller is None or self._listeners is None:
            return TICK_S
        turns, self._turns = self._turns, self.poller.number
        rest_s = TICK_S
        if turns == self._turns and not self._catching_up and self.http.is_at_rest():
            rest_s += TICK_S * self.wheel.quiet_ticks(REST_TICKS - 1)
        if self.access_output.waits:
            rest_s = TICK_S
        return self._listeners.rest_s(rest_s)

    def _tick_at_once(self) -> None:
        """Something happens: do the work of the ticks that are due, before anybody asks what time it is."""
        if self._next_tick is not None:
            self._next_tick.cancel()
        # This is followed by a tick soon, whatever becomes of the turn, which does not count as another one.
        self._turns = -1
        self._tick(begins_turn=True)
        self._turns += 1

    def _do_ticks_work(self, now_s: float, *, begins_turn: bool) -> None:
        monotonic_s = time.monotonic()
        late_s = max(0.0, now_s - self._tick_due_s)
        if late_s >= self.standstill_s:
            self._stood_still_s += late_s
        self._tell_place(monotonic_s, late_s)
        self.builder.refresh(time.time())
        self.wheel.advance(now_s - self._stood_still_s)
        if not self._catching_up:
            if begins_turn:
                # What the turn reads has come in time.
                self._catching_up = True
                self.loop.call_soon(self._fire)
            else:
                self._fire()
        if len(self.places) > 1:
            self.http.make_places()
        # As soon as the gateway is not ready any more, which is before it drains.
        self.kept.stopping = self.kept.stopping or self.places.board.draining_s > 0
        if self._listeners is not None:
            self._listeners.tick(monotonic_s)
        self.access_output.tick(monotonic_s)
        self.keys.tick(monotonic_s)
        if self._log is not None:
            self._log.tick()
            self.counted_in.add("log_events_dropped", self._log.take_dropped())
        if now_s >= self._events_at_s:
            self._events_at_s = now_s + logs.INTERVAL_S
            self.log_refusals()

    def _tell_place(self, now_s: float, late_s: float) -> None:
        """What the admin process shall know; now_s: by time.monotonic(). late_s: by how much the tick is."""
        place = self.places[self.place]
        place.beat(now_s)
        place.was_late(late_s, now_s)
        held = self.budget.counters()
        place.tell_held(
            self.http.requests_in_flight,
            self.http.refused_connections,
            (held["small_bytes"], held["bodies_bytes"], held["results_bytes"]),
            proxy_headers=0 if self.proxies is None else self.proxies.waiting,
            handshakes=0 if self.tls is None else self.tls.counters()["handshakes"],
        )
        kept = self.kept.counters()
        place.tell_kept(kept["queued"], kept["running"], kept["ended"], kept["streams"])
        place.servers.tell(
            (server.name_hash, server.connected, self.pool.keeper(server).take_reconnects())
            for server in self.pool.servers
        )

    def _fire(self) -> None:
        self._catching_up = False
        fired = self.wheel.fire(DEADLINES_PER_TURN)
        ended = self.http.relieve(DEADLINES_PER_TURN)
        self._catching_up = DEADLINES_PER_TURN in (fired, ended)
        if self._catching_up:
            # The clients that are not late have their turn first.
            self.loop.call_soon(self._fire)

    def log_refusals(self) -> None:
        """Log what was refused since the last time: a line a kind, with how often and one example."""
        events = self.http.take_events()
        if self.proxies is not None:
            events.update(self.proxies.take_events())
        for kind, (count, example, peer) in events.items():
            logger.warning(
                "refused %d times: %s; for example %s after '%s'",
                count,
                kind,
                peer or "a unix socket",
                example.decode("latin-1"),
                extra={"about": kind},
            )
        unserved = self.counted_in.read()["connections_unserved"]
        if unserved > self._told_unserved:
            closed = unserved - self._told_unserved
            logger.warning("closed %d connections for which no file descriptor or no memory was left", closed)
            self._told_unserved = unserved


def places_for(settings: Settings, count: int) -> Places:
    """What so many worker processes share with these settings. Raises OSError and SettingError."""
    places = Places(count, settings.max_connections)
    places.tell_apart(settings.function)
    places.id_keys = id_keys_of(settings) or (places.id_key,)
    return places


def _tokens_of(settings: Settings) -> tuple[TokenEntry, ...]:
    """The tokens of the file that the settings name. Raises StartError."""
    return read_tokens(settings) or NO_TOKENS
