"""What the admin process knows of the gateway: read from the memory that the processes share, from /proc, and from what
the job servers tell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from gatewayx.admin.job_servers import with_others
from gatewayx.admin.text import text_of
from gatewayx.admin.view import (
    CertificateView,
    FunctionView,
    GatewayView,
    HeldView,
    JobServerView,
    ProcessView,
    ReloadView,
    TokenView,
    WorkerView,
)
from gatewayx.core.budget import account_bounds
from gatewayx.core.counters import NAMES
from gatewayx.core.shared import CONNECTIONS, JOBS, KEPT_BYTES, KEPT_JOBS, KEPT_KEYS
from gatewayx.server.board import FilesRead, Phase, Record
from gatewayx.server.places import KEPT_STATES, Places, State, Watch
from gatewayx.server.server_rows import ServerConnections
from gatewayx.server.tls_files import NO_TLS, TlsFiles
from gatewayx.server.token_file import NO_TOKENS

if TYPE_CHECKING:
    from gatewayx.config.settings import Settings
    from gatewayx.config.tokens import TokenEntry
    from gatewayx.gearman.pool import Pool
    from gatewayx.gearman.pooled_server import PooledServer

# At most this part of the process's time goes into making views.
MAKING_PART = 0.05
# What is read from /proc, which takes system calls for each process, is read anew at most so often.
USAGE_S = 1.0
# A worker process whose loop has not turned for so long does not serve.
STILL_S = 3.0
# A loop that rests is late by so much without being late.
REST_S = 0.5

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage:
    """What one process has used, as /proc tells."""

    def __init__(self) -> None:
        self.process_id = 0
        self.cpu_s = 0.0
        self.load = 0.0
        self.memory_bytes = 0
        self._read_s = 0.0

    def read(self, process_id: int, now_s: float) -> None:
        """Read it anew; now_s: by time.monotonic(). A process that is gone uses nothing."""
        if process_id == self.process_id and now_s - self._read_s < USAGE_S:
            return
        try:
            with open(f"/proc/{process_id}/stat", "rb") as file:  # noqa: PTH123
                # The name of the program, in parentheses, may hold any.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            self.process_id = 0
            self.cpu_s = self.load = self.memory_bytes = 0
            return
        # proc_pid_stat(5): utime and stime are the 14th and 15th field, rss is the 24th; the third follows the name.
        cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        if process_id == self.process_id and now_s > self._read_s:
            self.load = max(0.0, cpu_s - self.cpu_s) / (now_s - self._read_s)
        else:
            self.load = 0.0
        self.process_id = process_id
        self.cpu_s = cpu_s
        self.memory_bytes = int(fields[21]) * PAGE_BYTES
        self._read_s = now_s


class _ServerState(NamedTuple):
    """What was told of a job server last: see JobServerView."""

    is_known: bool
    is_up: bool
    since_s: float


class Viewer:
    """Makes the view.

    places: what the processes share. pool: knows the job servers, by text connections alone. tokens, tls: what is told
    of files.
    """

    def __init__(
        self,
        places: Places,
        pool: Pool,
        settings: Settings,
        tokens: tuple[TokenEntry, ...] = NO_TOKENS,
        tls: TlsFiles = NO_TLS,
    ) -> None:
        self.settings = settings
        self.tokens = tokens
        self.tls = tls
        self._places = places
        self._board = places.board
        self._shared = places.shared()
        self._metrics = places.metrics()
        self._pool = pool
        self._counters = [place.counters() for place in places.rows]
        self._usages = [Usage() for _ in range(len(places) + 2)]
        self._watch = Watch(places, STILL_S, time.monotonic())
        # By time.monotonic(): when all job servers have had the time to answer.
        self.asked_s = float("inf")
        # By name of a job server.
        self._server_states: dict[str, _ServerState] = {}
        self._good_until_s = float("-inf")
        self._view: GatewayView | None = None

    def look(self) -> None:
        """To be called at each tick: only time in which this process ran itself counts as another's standing still."""
        self._watch.look(time.monotonic())

    def view(self) -> GatewayView:
        """The gateway as it is, or was a moment ago."""
        now_s = time.monotonic()
        if self._view is None or now_s >= self._good_until_s:
            self._watch.look(now_s)
            used_s = time.thread_time()
            self._view = self._make(now_s)
            used_s = time.thread_time() - used_s
            self._good_until_s = time.monotonic() + used_s / MAKING_PART
        return self._view

    def _make(self, now_s: float) -> GatewayView:
        board = self._board
        epoch_s = time.time()
        workers = [self._worker(place, now_s) for place in range(len(self._places))]
        master = self._process("master", None, self._usages[-2], now_s)
        admin = self._process("admin", board.admin, self._usages[-1], now_s)
        counts = [counters.read() for counters in self._counters]
        counters = {name: sum(count[name] for count in counts) for name in NAMES}
        settings = self.settings
        rows = [place for place, worker in zip(self._places.rows, workers, strict=True) if worker.process.process_id]
        bounds = account_bounds(settings.max_held_bytes)
        return GatewayView(
            now_s=epoch_s,
            started_s=board.started_s,
            has_started=board.has_started,
            draining_s=board.draining_s,
            master_still_s=self._watch.still_since(board.beat_s) if os.getppid() == board.master_id else None,
            worker_timeout_s=settings.worker_timeout_s,
            processes=[master, admin, *(worker.process for worker in workers)],
            workers=workers,
            job_servers=self._job_servers(epoch_s, workers),
            job_servers_asked=now_s >= self.asked_s,
            all_job_servers_up=self._all_up(),
            reload=ReloadView(board.reload.name.lower(), board.reload_s, board.reloaded_s, board.reload_detail),
            tokens=self._tokens(),
            tokens_file=_files(board.tokens),
            certificates=[
                CertificateView(purpose, term.path, list(term.names), term.not_before_s, term.not_after_s)
                for purpose, term in self.tls.terms()
            ],
            tls_files={
                "clients": _files(board.client_certificates),
                "job-servers": _files(board.job_server_certificates),
            },
            counters=counters,
            connections=HeldView(self._shared.taken(CONNECTIONS), settings.max_connections),
            refused_connections=sum(row.refused_connections for row in rows),
            proxy_headers=sum(row.proxy_headers for row in rows),
            handshakes=sum(row.handshakes for row in rows),
            jobs=HeldView(self._shared.taken(JOBS), settings.max_jobs),
            held_bytes={
                account: HeldView(sum(row.held_bytes(number) for row in rows), bounds[account])
                for number, account in enumerate(bounds)
            },
            kept=HeldView(self._shared.taken(KEPT_JOBS), settings.max_kept_jobs),
            kept_jobs={state: sum(row.kept_jobs[state] for row in rows) for state in KEPT_STATES},
            # As gateway/kept_jobs bounds them.
            kept_bytes=HeldView(self._shared.taken(KEPT_BYTES), bounds["results"] // 2),
            keys=HeldView(self._shared.taken(KEPT_KEYS), settings.max_keys),
            event_streams=sum(row.event_streams for row in rows),
            requests_in_flight=sum(row.requests for row in rows),
            dropped_lines={
                "access": counters["log_lines_dropped"],
                "events": counters["log_events_dropped"] + board.dropped_lines,
            },
        )

    def _tokens(self) -> list[TokenView]:
        """By name, in the order of the file."""
        if not self.tokens:
            return []
        counts: dict[int, int] = {}
        for place, _, count in self._metrics.token_requests():
            counts[place] = counts.get(place, 0) + count
        expiries: dict[str, list[float | None]] = {}
        for entry in self.tokens:
            expiries.setdefault(entry.name, []).append(entry.expires_s)
        known = self._metrics.tokens
        return [
            TokenView(
                name=name,
                requests=counts.get(place, 0) if (place := known.find(name.encode())) else None,
                jobs_in_flight=self._metrics.token_jobs(place) if place else None,
                expires_s=expires_s,
            )
            for name, expires_s in expiries.items()
        ]

    def _process(self, name: str, record: Record | None, usage: Usage, now_s: float) -> ProcessView:
        restarts = 0 if record is None else sum(record.restarts.values())
        ended_cpu_s = 0.0 if record is None else record.ended_cpu_s
        process_id = self._board.master_id if record is None else record.process_id
        usage.read(process_id, now_s)
        used_s = ended_cpu_s + usage.cpu_s
        cpu_s = self._board.master_cpu_s(used_s) if record is None else record.shown_cpu_s(used_s)
        return ProcessView(name, process_id, cpu_s, usage.load, usage.memory_bytes, restarts)

    def _worker(self, place: int, now_s: float) -> WorkerView:
        record = self._board.workers[place]
        row = self._places[place]
        still_s = self._watch.still_s(place)
        process = self._process(f"worker-{place}", record, self._usages[place], now_s)
        return WorkerView(
            place=place,
            state=_state(record.phase, row.state, still_s),
            since_s=record.since_s,
            begun_s=record.begun_s,
            restarts=record.restarts,
            process=process,
            lag_s=max(row.lag_s(now_s), still_s - REST_S if process.process_id else 0.0),
            still_s=still_s,
        )

    def _job_servers(self, epoch_s: float, workers: Sequence[WorkerView]) -> list[JobServerView]:
        names = self._function_names()
        connections = self._connections(workers)
        views = []
        states = {}
        for server in self._pool.servers:
            if server.name in states:
                # An address of several configured ones is one job server.
                continue
            is_up = server.status.functions_now() is not None
            is_known = is_up or bool(self._pool.keeper(server).last_reason)
            before = self._server_states.get(server.name, _ServerState(is_known, is_up, epoch_s))
            states[server.name] = _ServerState(
                is_known or before.is_known, is_up, before.since_s if before.is_up is is_up else epoch_s
            )
            connected = connections.get(server.name_hash, ServerConnections(0, 0))
            views.append(self._job_server(server, states[server.name], connected, names))
        self._server_states = states
        return views

    def _connections(self, workers: Sequence[WorkerView]) -> dict[int, ServerConnections]:
        """By the hash of a job server's name, what all worker processes have of it."""
        found: dict[int, ServerConnections] = {}
        for row, worker in zip(self._places.rows, workers, strict=True):
            for name_hash, told in row.servers.read():
                before = found.get(name_hash, ServerConnections(0, 0))
                # The connections of one that has ended are gone.
                connections = told.connections if worker.process.process_id else 0
                found[name_hash] = ServerConnections(
                    before.connections + connections, before.reconnects + told.reconnects
                )
        return found

    def _job_server(
        self, server: PooledServer, state: _ServerState, connected: ServerConnections, names: Iterable[bytes]
    ) -> JobServerView:
        is_known, is_up, since_s = state
        status = server.status
        told = status.functions_now() or {}
        known = {
            name: FunctionView(counts.queued + counts.running, counts.running, counts.workers)
            for name in names
            if (counts := told.get(name)) is not None
        }
        in_all = FunctionView(status.queued_jobs + status.running_jobs, status.running_jobs, status.workers_in_all)
        return JobServerView(
            name=server.name,
            is_known=is_known,
            is_up=is_up,
            since_s=since_s,
            reason="" if is_up else self._pool.keeper(server).last_reason or "no answer yet",
            version=text_of(status.version),
            functions=with_others(known, in_all) if is_up else {},
            connections=connected.connections,
            reconnects=connected.reconnects,
        )

    def _function_names(self) -> list[bytes]:
        """The functions that have a place, once those had their chance that have workers now."""
        functions = self._metrics.functions
        for server in self._pool.servers:
            for name in server.status.served:
                functions.claim(name)
        return [name for name in functions.names()[1:] if name is not None]

    def _all_up(self) -> bool:
        servers = self._pool.servers
        with_servers = {server.entry for server in servers}
        return len(with_servers) >= len(self.settings.server) and all(
            server.status.functions_now() is not None for server in servers
        )


def _files(record: FilesRead) -> ReloadView:
    return ReloadView(record.result.name.lower(), record.at_s, record.successful_s, record.detail)


def _state(phase: Phase, state: State, still_s: float) -> str:
    if phase is Phase.AWAY:
        return "away"
    if phase is Phase.STARTING:
        return "starting"
    if phase is Phase.ABORTED:
        return "ending"
    if state in (State.DRAINING, State.DONE):
        return "draining"
    return "still" if still_s >= STILL_S else "ready"
