"""The metrics of /metrics, as families for prometheus-client's exposition. Names and meanings are in docs/admin.md.

All of them are made anew of the view and of the rows in shared memory; nothing is counted here.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gatewayx import __version__
from gatewayx.admin.refusals import REFUSALS
from gatewayx.admin.view import RESTART_REASONS, WORKER_STATES, GatewayView

# What of the program's own parts stands in gatewayx_build_info.
PARTS = ("uvloop", "httptools")


def text_of(name: bytes) -> str:
    r"""A name that a stranger has made up, as the value of a label: what is not UTF-8 as `\xff`."""
    return name.decode("utf-8", "backslashreplace")


def gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(name, documentation, value=value)


def labelled(
    family: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    documentation: str,
    labels: Iterable[str],
    rows: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    """A family with these labels and, for each row, the values of the labels and the sample's."""
    made = family(name, documentation, labels=tuple(labels))
    for values, count in rows:
        made.add_metric(values, count)
    return made


class GatewayFamilies:
    """A collector of prometheus-client's: the families of the gateway but those of requests and jobs.

    view: returns the gateway as it is.
    """

    def __init__(self, view: Callable[[], GatewayView]) -> None:
        self._view = view
        self._build = {
            "version": __version__,
            "python": platform.python_version(),
            **{part: version(part) for part in PARTS},
        }

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        view = self._view()
        yield from self._about_itself(view)
        yield from self._held(view)
        yield from self._processes(view)
        yield from self._job_servers(view)
        yield from self._of_the_exporter(view)

    def _about_itself(self, view: GatewayView) -> Iterator[Metric]:
        yield labelled(
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
        yield labelled(
            CounterMetricFamily,
            "gatewayx_log_dropped",
            "Lines of logs that were dropped, since nobody read them or the disk was full.",
            ("log",),
            [((log,), count) for log, count in view.dropped_lines.items()],
        )

    def _held(self, view: GatewayView) -> Iterator[Metric]:
        yield labelled(
            GaugeMetricFamily,
            "gatewayx_connections",
            "Client connections: open ones, which count towards the limit, and refused ones that linger beside it.",
            ("state",),
            [(("open",), view.connections.held), (("refused",), view.refused_connections)],
        )
        yield gauge("gatewayx_connections_limit", "The bound max-connections.", view.connections.limit)
        yield CounterMetricFamily(
            "gatewayx_connections_accepted",
            "Client connections that were let in.",
            value=view.counters["connections_accepted"],
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
            yield labelled(
                GaugeMetricFamily,
                name,
                documentation,
                ("account",),
                [((account,), held[part]) for account, held in view.held_bytes.items()],
            )
        yield labelled(
            CounterMetricFamily,
            "gatewayx_refusals",
            "What was refused, ended or closed before its time, by reason.",
            ("reason",),
            [((reason,), view.counters[name]) for reason, name in REFUSALS.items()],
        )
        yield CounterMetricFamily(
            "gatewayx_relayed",
            "Requests that a worker process was given by another one, since it owns their unique.",
            value=view.counters["requests_relayed"],
        )

    def _processes(self, view: GatewayView) -> Iterator[Metric]:
        states = dict.fromkeys(WORKER_STATES, 0)
        restarts = dict.fromkeys(RESTART_REASONS, 0)
        for worker in view.workers:
            states[worker.state] += 1
            for reason, count in worker.restarts.items():
                restarts[reason] += count
        yield labelled(
            GaugeMetricFamily,
            "gatewayx_workers",
            "Worker processes, by state; ready are those that serve.",
            ("state",),
            [((state,), count) for state, count in states.items()],
        )
        yield labelled(
            CounterMetricFamily,
            "gatewayx_worker_restarts",
            "Worker processes that ended without being asked to, by reason.",
            ("reason",),
            [((reason,), count) for reason, count in restarts.items()],
        )
        yield labelled(
            GaugeMetricFamily,
            "gatewayx_event_loop_lag_seconds",
            "The longest time by which the loop of a worker process was late, in the last 15 to 30 seconds.",
            ("worker",),
            [((str(worker.place),), worker.lag_s) for worker in view.workers],
        )
        yield labelled(
            CounterMetricFamily,
            "gatewayx_process_cpu_seconds",
            "Time of processors that a process has used, with those that were there before it.",
            ("process",),
            [((process.name,), process.cpu_s) for process in view.processes],
        )
        yield labelled(
            GaugeMetricFamily,
            "gatewayx_process_resident_memory_bytes",
            "Memory that a process has; what processes share counts in each.",
            ("process",),
            [((process.name,), process.memory_bytes) for process in view.processes],
        )

    def _job_servers(self, view: GatewayView) -> Iterator[Metric]:
        yield labelled(
            GaugeMetricFamily,
            "gatewayx_job_server_up",
            "Whether any worker process is connected to the job server.",
            ("server",),
            [((server.name,), server.connections > 0) for server in view.job_servers],
        )
        yield labelled(
            CounterMetricFamily,
            "gatewayx_job_server_reconnects",
            "Connections of worker processes to the job server that were lost, and made anew once it could be reached.",
            ("server",),
            [((server.name,), server.lost_connections) for server in view.job_servers],
        )

    def _of_the_exporter(self, view: GatewayView) -> Iterator[Metric]:
        """Under the names of bakins/gearman-exporter, whose dashboards go on working."""
        yield labelled(
            GaugeMetricFamily,
            "gearman_up",
            "Whether the job server answers by text.",
            ("server",),
            [((server.name,), server.is_up) for server in view.job_servers],
        )
        yield labelled(
            GaugeMetricFamily,
            "gearman_version_info",
            "The job server's version; always 1.",
            ("server", "version"),
            [((server.name, server.version), 1) for server in view.job_servers if server.is_up and server.version],
        )
        for name, documentation, count in (
            ("gearman_jobs", "Jobs queued or running, with cancelled ones until a worker would have had them.", 0),
            ("gearman_jobs_running", "Jobs that a worker has.", 1),
            ("gearman_jobs_waiting", "Jobs that no worker has yet.", None),
            ("gearman_workers", "Workers that can do the function.", 2),
        ):
            yield labelled(
                GaugeMetricFamily,
                name,
                documentation,
                ("server", "function"),
                [
                    (
                        (server.name, text_of(function)),
                        counts.jobs - counts.running if count is None else counts[count],
                    )
                    for server in view.job_servers
                    if server.is_up
                    for function, counts in server.functions.items()
                ],
            )
