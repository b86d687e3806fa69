"""What the admin process knows of its gateway at one moment: what it tells, and what metrics and checks are made of.

Whoever fills it in (server/admin_view) reads shared memory and /proc; here and in the rest of the room is no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# What becomes of functions whose names have no place: strangers make up any number of them.
OTHER_FUNCTION = b"_other"

# What a worker process may be, in the order of its life. Ready is one that serves. Still: its loop does not turn.
WORKER_STATES = ("starting", "ready", "still", "draining", "ending", "away")
# Why one may have ended that was not asked to.
RESTART_REASONS = ("crash", "hang", "oom", "exit")


class ProcessView(NamedTuple):
    """A process of the gateway, and what those have used that were there before it."""

    # "master", "admin", or "worker-" and its place.
    name: str
    # 0 while none is there.
    process_id: int
    cpu_s: float
    # The part of one processor that it has used lately.
    load: float
    memory_bytes: int
    # How many have ended that were not asked to; 0 of the master, which nobody would replace.
    restarts: int


class WorkerView(NamedTuple):
    """The worker process of a place."""

    place: int
    # One of WORKER_STATES, and since when, in seconds since the epoch.
    state: str
    since_s: float
    # When its process was forked, likewise; 0 while none is there.
    begun_s: float
    restarts: Mapping[str, int]
    process: ProcessView
    # The longest time by which its loop was late in the last seconds.
    lag_s: float
    # For how long its loop has not turned.
    still_s: float


class FunctionView(NamedTuple):
    """A function at a job server."""

    jobs: int
    running: int
    workers: int

    @property
    def waiting(self) -> int:
        """Jobs that no worker has yet."""
        return self.jobs - self.running


class JobServerView(NamedTuple):
    """A job server, as the admin process's own text connection and the worker processes' connections have it."""

    name: str
    # It has answered this admin process, or has failed to. One that has just begun does not know.
    is_known: bool
    # It answers by text, and since when it does or does not, in seconds since the epoch.
    is_up: bool
    since_s: float
    # Why it does not; empty if it does.
    reason: str
    # What it has answered to `version`; empty before.
    version: str
    # By name, the functions that have a place, the others' sum as OTHER_FUNCTION.
    functions: Mapping[bytes, FunctionView]
    # How many connections of worker processes to it are up, and how many were made anew since the start.
    connections: int
    reconnects: int


class ReloadView(NamedTuple):
    """What has become of the last SIGHUP, or of the last reading of files."""

    # One of none, successful, failed and partly.
    result: str
    # In seconds since the epoch: when that was, 0 for never; when those were read that the gateway goes on with.
    at_s: float
    successful_s: float
    # Why it has failed; empty otherwise.
    detail: str


class CertificateView(NamedTuple):
    """A certificate that the gateway shows, or that of an authority."""

    # To whom it is shown: clients or job-servers; or whom it vouches for: client-authorities or job-server-authorities.
    purpose: str
    # Of its file, as the settings have it.
    path: str
    # For which names and addresses it is; the authority's name.
    names: list[str]
    # From when to when it is good, in seconds since the epoch.
    not_before_s: float
    not_after_s: float


class TokenView(NamedTuple):
    """The tokens of a name."""

    name: str
    # How many requests with them have ended; None if they are counted with others, for want of room for the name.
    requests: int | None
    jobs_in_flight: int | None
    # Of each of them, in seconds since the epoch; None for never.
    expires_s: list[float | None]


class HeldView(NamedTuple):
    """Something that has a bound, which holds for the whole gateway."""

    held: int
    limit: int


class GatewayView(NamedTuple):
    """All of it."""

    # In seconds since the epoch.
    now_s: float
    started_s: float
    # Each place has had its first worker process or failed to, and one has served.
    has_started: bool
    # Since when it is told to stop; 0 if it is not.
    draining_s: float
    # For how long the master has not looked at its children, which it does once a second; None if it is gone.
    master_still_s: float | None
    # How long a loop may stand still before the gateway takes it for a hang.
    worker_timeout_s: float
    processes: list[ProcessView]
    workers: list[WorkerView]
    job_servers: list[JobServerView]
    # Whether all of them have been asked; one that has just begun knows nothing yet.
    job_servers_asked: bool
    # Whether every configured job server is up, of a name with each:// at least one address.
    all_job_servers_up: bool
    reload: ReloadView
    tokens: list[TokenView]
    tokens_file: ReloadView
    certificates: list[CertificateView]
    # By purpose.
    tls_files: Mapping[str, ReloadView]
    # Sums over all places, by the names in core/counters.
    counters: Mapping[str, int]
    connections: HeldView
    # Connections beside those that count: they were refused, or have to make room, and linger.
    refused_connections: int
    # Connections of proxies whose header is not whole, which do not count yet.
    proxy_headers: int
    # TLS handshakes of clients that have begun and not ended, of connections that count.
    handshakes: int
    # Those that were submitted and are not answered.
    jobs: HeldView
    # By account: small, bodies, results.
    held_bytes: Mapping[str, HeldView]
    # Jobs that outlive their request, in all and by whether they are queued, running, or ended; and bytes for them.
    kept: HeldView
    kept_jobs: Mapping[str, int]
    kept_bytes: HeldView
    # Idempotency keys.
    keys: HeldView
    # Streams of events that are open.
    event_streams: int
    requests_in_flight: int
    # By log: lines that were dropped.
    dropped_lines: Mapping[str, int]
