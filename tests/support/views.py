"""Views of a gateway that is well, to be made worse."""

from __future__ import annotations

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
from gatewayx.core.counters import NAMES

NOW_S = 1_800_000_000.25


def process(name: str, process_id: int) -> ProcessView:
    """A process that has used a second, in the place of one that has ended."""
    return ProcessView(name, process_id, 1.0, 0.5, 1 << 20, 1)


def worker(place: int = 0, state: str = "ready", still_s: float = 0.0) -> WorkerView:
    """The worker process of a place."""
    return WorkerView(
        place=place,
        state=state,
        since_s=NOW_S - 60,
        begun_s=0.0 if state == "away" else NOW_S - 61,
        restarts={"crash": 0, "hang": 1, "oom": 2, "exit": 0},
        process=process(f"worker-{place}", 0 if state == "away" else 100 + place),
        lag_s=0.001,
        still_s=still_s,
    )


def job_server(name: str = "127.0.0.1:4730", *, is_up: bool = True, **functions: FunctionView) -> JobServerView:
    """A job server with these functions."""
    return JobServerView(
        name=name,
        is_known=True,
        is_up=is_up,
        since_s=NOW_S - 60,
        reason="" if is_up else "Connection refused",
        version="1.1.21",
        functions={function.encode(): counts for function, counts in functions.items()},
        connections=4 if is_up else 0,
        reconnects=3,
    )


def view(**changes: object) -> GatewayView:
    """A gateway with two worker processes and a job server, all of them well, but for these fields."""
    workers = [worker(0), worker(1)]
    well = GatewayView(
        now_s=NOW_S,
        started_s=NOW_S - 3600,
        has_started=True,
        draining_s=0.0,
        master_still_s=0.5,
        worker_timeout_s=30.0,
        processes=[process("master", 98), process("admin", 99), *(found.process for found in workers)],
        workers=workers,
        job_servers=[job_server(_other=FunctionView(0, 0, 0), resize=FunctionView(5, 2, 3))],
        job_servers_asked=True,
        all_job_servers_up=True,
        reload=ReloadView("none", 0.0, NOW_S - 3600, ""),
        tokens=[TokenView("shop", 12, 3, [None, NOW_S + 86_400])],
        tokens_file=ReloadView("successful", NOW_S - 3600, NOW_S - 3600, ""),
        certificates=[
            CertificateView("clients", "/etc/gw.pem", ["gw.example", "127.0.0.1"], NOW_S - 86400, NOW_S + 86400)
        ],
        tls_files={
            "clients": ReloadView("successful", NOW_S - 3600, NOW_S - 3600, ""),
            "job-servers": ReloadView("none", 0, 0, ""),
        },
        counters={name: number for number, name in enumerate(NAMES)},
        connections=HeldView(7, 10_000),
        refused_connections=1,
        proxy_headers=3,
        handshakes=2,
        jobs=HeldView(6, 10_000),
        held_bytes={account: HeldView(5, 1 << 20) for account in ("small", "bodies", "results")},
        kept=HeldView(9, 10_000),
        kept_jobs={"queued": 2, "running": 3, "ended": 4},
        kept_bytes=HeldView(5 << 20, 64 << 20),
        keys=HeldView(8, 100_000),
        event_streams=1,
        requests_in_flight=6,
        dropped_lines={"access": 1, "events": 2},
    )
    return well._replace(**changes)
