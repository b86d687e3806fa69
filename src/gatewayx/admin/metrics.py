"""The metrics of /metrics, as families for prometheus-client's exposition. Names and meanings are in docs/admin.md.

All of them are made anew of the view and of the rows in shared memory; nothing is counted here.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gatewayx import __version__
from gatewayx.admin.families import Family, Part, gauge, labelled
from gatewayx.admin.refusals import HANDSHAKE_ENDS, KEPT_ENDS, KEY_USES, REFUSALS
from gatewayx.admin.text import text_of
from gatewayx.admin.view import RESTART_REASONS, WORKER_STATES, GatewayView

# What of the program's own parts stands in gatewayx_build_info.
PARTS = ("uvloop", "httptools")


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    documentation: str,
    labels: Iterable[str],
    rows: Iterable[tuple[tuple[str, ...], float]],
) -> Family:
    return Family(labelled(kind, name, documentation, labels, rows))


def _counter(name: str, documentation: str, value: float) -> Family:
    return Family(CounterMetricFamily(name, documentation, value=value))


class GatewayFamilies:
    """Makes the families of the gateway but those of requests and jobs.

    view: returns the gateway as it is.
    """

    def __init__(self, view: Callable[[], GatewayView]) -> None:
        self._view = view
        self._build = {
            "version": __version__,
            "python": platform.python_version(),
            **{part: version(part) for part in PARTS},
        }

    def families(self) -> Iterator[Family]:
        """All of them, as the gateway is now."""
        view = self._view()
        yield from self._about_itself(view)
        yield from self._held(view)
        yield from self._kept(view)
        yield from self._keys_and_batches(view)
        yield from self._tls(view)
        yield from self._processes(view)
        yield from self._job_servers(view)
        yield from self._of_the_exporter(view)

    def _about_itself(self, view: GatewayView) -> Iterator[Family]:
        yield _family(
            GaugeMetricFamily,
            "gatewayx_build_info",
            "Versions of the gateway and of what it stands on; always 1.",
            self._build,
            [(tuple(self._build.values()), 1)],
        )
        yield gauge("gatewayx_start_time_seconds", "When the gateway was started, since the epoch.", view.started_s)
        yield gauge(
            "gatewayx_config_last_reload_successful",
            "Whether the last reload of the settings succeeded in all processes; 1 before the first.",
            view.reload.result in ("none", "successful"),
        )
        yield gauge(
            "gatewayx_config_last_reload_success_timestamp_seconds",
            "When the settings were read that all processes have, since the epoch.",
            view.reload.successful_s,
        )
        yield gauge(
            "gatewayx_tokens_last_read_successful",
            "Whether the file of tokens held when it was read last; 1 without such a file.",
            view.tokens_file.result in ("none", "successful"),
        )
        yield _family(
            CounterMetricFamily,
            "gatewayx_log_dropped",
            "Lines of logs that were dropped, since nobody read them or the disk was full.",
            ("log",),
            [((log,), count) for log, count in view.dropped_lines.items()],
        )

    def _held(self, view: GatewayView) -> Iterator[Family]:
        yield _family(
            GaugeMetricFamily,
            "gatewayx_connections",
            "Client connections: open ones, which count towards the limit; beside it those whose PROXY header is not "
            "whole, and refused ones that linger.",
            ("state",),
            [
                (("open",), view.connections.held),
                (("proxy-header",), view.proxy_headers),
                (("refused",), view.refused_connections),
            ],
        )
        yield gauge("gatewayx_connections_limit", "The bound max-connections.", view.connections.limit)
        yield _counter(
            "gatewayx_connections_accepted",
            "Client connections that were let in.",
            view.counters["connections_accepted"],
        )
        yield gauge(
            "gatewayx_http_requests_in_flight",
            "Requests that have begun and whose answers are not written.",
            view.requests_in_flight,
        )
        yield gauge("gatewayx_jobs_in_flight", "Jobs that were submitted and are not answered.", view.jobs.held)
        yield gauge("gatewayx_jobs_in_flight_limit", "The bound max-jobs.", view.jobs.limit)
        for name, documentation, part in (
            ("gatewayx_held_bytes", "Bytes held for clients, by account of max-held.", 0),
            ("gatewayx_held_limit_bytes", "What each account of max-held may hold.", 1),
        ):
            yield _family(
                GaugeMetricFamily,
                name,
                documentation,
                ("account",),
                [((account,), held[part]) for account, held in view.held_bytes.items()],
            )
        yield _family(
            CounterMetricFamily,
            "gatewayx_refusals",
            "What was refused, ended or closed before its time, by reason.",
            ("reason",),
            [((reason,), view.counters[name]) for reason, name in REFUSALS.items()],
        )
        yield _counter(
            "gatewayx_rates_forgiven",
            "Addresses, tokens and functions that had all of their burst again before their time, since others needed "
            "their places in the table of rates.",
            view.counters["rates_forgiven"],
        )
        yield _counter(
            "gatewayx_relayed",
            "Requests that a worker process was given by another one, since it owns their unique.",
            view.counters["requests_relayed"],
        )

    def _kept(self, view: GatewayView) -> Iterator[Family]:
        counters = view.counters
        yield _family(
            GaugeMetricFamily,
            "gatewayx_kept_jobs",
            "Jobs that outlive their request, by what is known of them.",
            ("state",),
            [((state,), count) for state, count in view.kept_jobs.items()],
        )
        yield gauge("gatewayx_kept_jobs_limit", "The bound max-kept-jobs.", view.kept.limit)
        yield _counter("gatewayx_kept_jobs_begun", "Jobs that were kept.", counters["kept_begun"])
        yield _family(
            CounterMetricFamily,
            "gatewayx_kept_jobs_ended",
            "Kept jobs that have ended, by how; those of a worker process that has ended are lost.",
            ("state",),
            [((state,), counters[name]) for state, name in KEPT_ENDS.items()],
        )
        yield _counter(
            "gatewayx_kept_results_dropped",
            "Results of kept jobs that had to make room for newer ones.",
            counters["kept_results_dropped"],
        )
        yield gauge("gatewayx_kept_bytes", "Bytes held for kept jobs, among the results.", view.kept_bytes.held)
        yield gauge("gatewayx_kept_limit_bytes", "What kept jobs may hold.", view.kept_bytes.limit)
        yield gauge("gatewayx_event_streams", "Answers that are streams of events and go on.", view.event_streams)
        for name, documentation in (
            ("event_streams", "Answers that were streams of events."),
            ("event_streams_cut", "Streams of events that ended since their client did not read."),
            ("status_polls", "Questions to job servers about background jobs."),
            ("status_polls_refused", "Requests about background jobs that were refused, for max-status-polls."),
        ):
            suffix = "_begun" if name == "event_streams" else ""
            yield _counter(f"gatewayx_{name}{suffix}", documentation, counters[name])

    def _keys_and_batches(self, view: GatewayView) -> Iterator[Family]:
        counters = view.counters
        yield gauge("gatewayx_idempotency_keys", "Idempotency keys that are known.", view.keys.held)
        yield gauge("gatewayx_idempotency_keys_limit", "The bound max-keys.", view.keys.limit)
        yield _family(
            CounterMetricFamily,
            "gatewayx_idempotent_requests",
            "Requests with an idempotency key, by what became of them.",
            ("how",),
            [((how,), counters[name]) for how, name in KEY_USES.items()],
        )
        yield _counter("gatewayx_batches", "Batches of jobs.", counters["batches"])
        yield _counter("gatewayx_batch_jobs", "Jobs of lines of batches that were begun.", counters["batch_jobs"])

    def _tls(self, view: GatewayView) -> Iterator[Family]:
        yield gauge(
            "gatewayx_tls_handshakes_in_flight",
            "TLS handshakes of clients that have begun and not ended.",
            view.handshakes,
        )
        yield _family(
            CounterMetricFamily,
            "gatewayx_tls_handshakes",
            "TLS handshakes of clients, by how they have ended; left are those that were given up.",
            ("result",),
            [((result,), view.counters[name]) for result, name in HANDSHAKE_ENDS.items()],
        )
        yield _family(
            GaugeMetricFamily,
            "gatewayx_tls_certificate_not_after_seconds",
            "When a certificate expires that clients or job servers are shown or trusted by, since the epoch.",
            ("purpose", "certificate"),
            [((shown.purpose, shown.path), shown.not_after_s) for shown in view.certificates],
        )
        yield _family(
            GaugeMetricFamily,
            "gatewayx_tls_files_last_read_successful",
            "Whether the files of TLS to clients or job servers held when they were read last; 1 without such files.",
            ("purpose",),
            [((purpose,), read.result in ("none", "successful")) for purpose, read in view.tls_files.items()],
        )

    def _processes(self, view: GatewayView) -> Iterator[Family]:
        states = dict.fromkeys(WORKER_STATES, 0)
        restarts = dict.fromkeys(RESTART_REASONS, 0)
        for worker in view.workers:
            states[worker.state] += 1
            for reason, count in worker.restarts.items():
                restarts[reason] += count
        yield _family(
            GaugeMetricFamily,
            "gatewayx_workers",
            "Worker processes, by state; ready are those that serve.",
            ("state",),
            [((state,), count) for state, count in states.items()],
        )
        yield _family(
            CounterMetricFamily,
            "gatewayx_worker_restarts",
            "Worker processes that ended without being asked to, by reason.",
            ("reason",),
            [((reason,), count) for reason, count in restarts.items()],
        )
        yield _family(
            GaugeMetricFamily,
            "gatewayx_event_loop_lag_seconds",
            "The longest time by which the loop of a worker process was late, in the last 15 to 30 seconds.",
            ("worker",),
            [((str(worker.place),), worker.lag_s) for worker in view.workers],
        )
        yield _family(
            CounterMetricFamily,
            "gatewayx_process_restarts",
            "Processes that ended without being asked to, by the place that they had.",
            ("process",),
            [((process.name,), process.restarts) for process in view.processes if process.name != "master"],
        )
        yield _family(
            CounterMetricFamily,
            "gatewayx_process_cpu_seconds",
            "Time of processors that a process has used, with those that were there before it.",
            ("process",),
            [((process.name,), process.cpu_s) for process in view.processes],
        )
        yield _family(
            GaugeMetricFamily,
            "gatewayx_process_resident_memory_bytes",
            "Memory that a process has; what processes share counts in each.",
            ("process",),
            [((process.name,), process.memory_bytes) for process in view.processes],
        )

    def _job_servers(self, view: GatewayView) -> Iterator[Family]:
        yield _family(
            GaugeMetricFamily,
            "gatewayx_job_server_up",
            "Whether any worker process is connected to the job server.",
            ("server",),
            [((server.name,), server.connections > 0) for server in view.job_servers],
        )
        yield _family(
            CounterMetricFamily,
            "gatewayx_job_server_reconnects",
            "Connections of worker processes to the job server that took the place of one that was lost.",
            ("server",),
            [((server.name,), server.reconnects) for server in view.job_servers],
        )

    def _of_the_exporter(self, view: GatewayView) -> Iterator[Family]:
        """Under the names of bakins/gearman-exporter, whose dashboards go on working."""
        yield _family(
            GaugeMetricFamily,
            "gearman_up",
            "Whether the job server answers by text.",
            ("server",),
            [((server.name,), server.is_up) for server in view.job_servers if server.is_known],
        )
        yield _family(
            GaugeMetricFamily,
            "gearman_version_info",
            "The job server's version; always 1.",
            ("server", "version"),
            [((server.name, server.version), 1) for server in view.job_servers if server.is_up and server.version],
        )
        for name, documentation, field in (
            ("gearman_jobs", "Jobs queued or running, with cancelled ones until a worker would have had them.", "jobs"),
            ("gearman_jobs_running", "Jobs that a worker has.", "running"),
            ("gearman_jobs_waiting", "Jobs that no worker has yet.", "waiting"),
            ("gearman_workers", "Workers that can do the function.", "workers"),
        ):
            make = partial(labelled, GaugeMetricFamily, name, documentation, ("server", "function"))
            parts = []
            for server in view.job_servers:
                if server.is_up:
                    rows = [
                        ((server.name, text_of(function)), getattr(counts, field))
                        for function, counts in server.functions.items()
                    ]
                    parts.append(
                        Part(server.name, list(server.functions), [count for _, count in rows], partial(make, rows))
                    )
            yield Family(make(()), parts)
