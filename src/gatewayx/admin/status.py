"""/status: what the gateway is and has, as one JSON document, whose fields are in docs/admin.md and do not change."""

from __future__ import annotations

from typing import Any

import orjson

from gatewayx import __version__
from gatewayx.admin.job_servers import by_function
from gatewayx.admin.refusals import KEPT_ENDS, KEY_USES, REFUSALS
from gatewayx.admin.text import text_of
from gatewayx.admin.times import rfc3339, rfc3339_or_none
from gatewayx.admin.view import GatewayView, HeldView, JobServerView, ProcessView, ReloadView, TokenView, WorkerView


def document(view: GatewayView) -> dict[str, Any]:
    """The document, as values that JSON has."""
    return {
        "version": __version__,
        "now": rfc3339(view.now_s),
        "started": rfc3339(view.started_s),
        "stopping": rfc3339_or_none(view.draining_s),
        "workers": [_worker(worker) for worker in view.workers],
        "processes": [_process(process) for process in view.processes],
        "job_servers": [_job_server(server) for server in view.job_servers],
        "functions": [
            {
                "function": text_of(name),
                "jobs": counts.jobs,
                "running": counts.running,
                "waiting": counts.waiting,
                "workers": counts.workers,
            }
            for name, counts in by_function(view).items()
        ],
        "requests": {
            "in_flight": view.requests_in_flight,
            "answered": view.counters["requests_answered"],
            "refused": view.counters["requests_refused"],
            "abandoned": view.counters["requests_abandoned"],
            "relayed": view.counters["requests_relayed"],
        },
        "kept_jobs": {
            **view.kept_jobs,
            "begun": view.counters["kept_begun"],
            **{state: view.counters[name] for state, name in KEPT_ENDS.items()},
            "results_dropped": view.counters["kept_results_dropped"],
        },
        "idempotency_keys": {how: view.counters[name] for how, name in KEY_USES.items()},
        "batches": {"begun": view.counters["batches"], "jobs": view.counters["batch_jobs"]},
        "event_streams": {
            "open": view.event_streams,
            "begun": view.counters["event_streams"],
            "cut": view.counters["event_streams_cut"],
        },
        "status_polls": {"asked": view.counters["status_polls"], "refused": view.counters["status_polls_refused"]},
        "refusals": {reason: view.counters[name] for reason, name in REFUSALS.items()},
        "limits": {
            "connections": _held(view.connections),
            "jobs": _held(view.jobs),
            "kept_jobs": _held(view.kept),
            "kept_bytes": _held(view.kept_bytes),
            "idempotency_keys": _held(view.keys),
            "bytes": {account: _held(held) for account, held in view.held_bytes.items()},
        },
        "reload": _reload(view.reload),
        "tokens": [_token(token) for token in view.tokens],
        "tokens_file": _reload(view.tokens_file),
        "certificates": [
            {
                "purpose": certificate.purpose,
                "file": certificate.path,
                "names": certificate.names,
                "not_before": rfc3339(certificate.not_before_s),
                "not_after": rfc3339(certificate.not_after_s),
            }
            for certificate in view.certificates
        ],
        "tls_files": {purpose.replace("-", "_"): _reload(read) for purpose, read in view.tls_files.items()},
    }


def body(view: GatewayView) -> bytes:
    """The document as it is answered."""
    return orjson.dumps(document(view), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _reload(reload: ReloadView) -> dict[str, Any]:
    return {
        "result": reload.result,
        "at": rfc3339_or_none(reload.at_s),
        "last_successful": rfc3339_or_none(reload.successful_s),
        "detail": reload.detail,
    }


def _token(token: TokenView) -> dict[str, Any]:
    return {
        "name": token.name,
        "requests": token.requests,
        "jobs_in_flight": token.jobs_in_flight,
        "expires": [None if expires_s is None else rfc3339(expires_s) for expires_s in token.expires_s],
    }


def _held(held: HeldView) -> dict[str, int]:
    return {"held": held.held, "limit": held.limit}


def _process(process: ProcessView) -> dict[str, Any]:
    return {
        "process": process.name,
        "pid": process.process_id,
        "cpu_s": round(process.cpu_s, 3),
        "load": round(process.load, 3),
        "memory_bytes": process.memory_bytes,
        "restarts": process.restarts,
    }


def _worker(worker: WorkerView) -> dict[str, Any]:
    return {
        "place": worker.place,
        "pid": worker.process.process_id or None,
        "state": worker.state,
        "since": rfc3339_or_none(worker.since_s),
        "started": rfc3339_or_none(worker.begun_s),
        "restarts": sum(worker.restarts.values()),
        "restarts_by_reason": dict(worker.restarts),
        "memory_bytes": worker.process.memory_bytes,
        "cpu_s": round(worker.process.cpu_s, 3),
        "load": round(worker.process.load, 3),
        "loop_lag_s": round(worker.lag_s, 6),
    }


def _job_server(server: JobServerView) -> dict[str, Any]:
    return {
        "server": server.name,
        "up": server.is_up,
        "since": rfc3339(server.since_s),
        "reason": server.reason,
        "version": server.version,
        "connections": server.connections,
        "reconnects": server.reconnects,
    }
