"""The metrics of requests and jobs, from the counts that the worker processes have in shared memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from gatewayx.admin.families import Family, Part, labelled
from gatewayx.admin.text import text_of

# A duration of a function: its place, how many were at most so long for each bound, and their sum in seconds.
Duration = tuple[int, Sequence[int], float]


class Names(Protocol):
    """Names that have a place each, which they keep."""

    def names(self) -> Sequence[bytes | None]:
        """All of them, by place; None for a place that has none."""


class Rows(Protocol):
    """The counts of all worker processes together, as core/metrics has them."""

    @property
    def functions(self) -> Names:
        """The functions that are told apart; the others are counted at place 0."""

    @property
    def servers(self) -> Names:
        """The job servers that are told apart."""

    @property
    def tokens(self) -> Names:
        """The names of tokens that are told apart."""

    def token_requests(self) -> Iterable[tuple[int, int, int]]:
        """Token, outcome and count of the requests with a token that there were."""

    def requests(self) -> Iterable[tuple[str, int, int, int]]:
        """Method, outcome, function and count of the requests that there were."""

    def durations(self) -> Iterable[Duration]:
        """How long requests took."""

    def jobs(self) -> Iterable[tuple[int, int, str, int]]:
        """Function, job server, result and count of the jobs that there were."""

    def job_durations(self) -> Iterable[Duration]:
        """How long jobs took."""


class RequestFamilies:
    """Makes the families, a part for each function.

    rows: what was counted. outcomes: what an outcome is called, and the status of its answer. bounds_s: of durations,
    without the infinite one.
    """

    def __init__(self, rows: Rows, outcomes: Sequence[tuple[str, int]], bounds_s: Sequence[float]) -> None:
        self._rows = rows
        self._outcomes = outcomes
        self._bounds = [*(str(float(bound_s)) for bound_s in bounds_s), "+Inf"]

    def families(self) -> Iterator[Family]:
        """All of them, as the counts are now."""
        rows = self._rows
        # Nothing is counted at a place without a name.
        functions = [text_of(name or b"") for name in rows.functions.names()]
        servers = [text_of(name or b"") for name in rows.servers.names()]
        requests: list[list[tuple[tuple[str, ...], float]]] = [[] for _ in functions]
        for method, outcome, function, count in rows.requests():
            name, status = self._outcomes[outcome]
            requests[function].append(((method, str(status), functions[function], name), count))
        yield self._counters(
            "gatewayx_http_requests",
            "Requests that have ended, by what became of them: ok, or the kind of the problem.",
            ("method", "code", "function", "outcome"),
            functions,
            requests,
        )
        yield self._histogram(
            "gatewayx_http_request_duration_seconds",
            "From the end of a request's head to the last byte of its answer being given to the kernel.",
            functions,
            rows.durations(),
        )
        jobs: list[list[tuple[tuple[str, ...], float]]] = [[] for _ in functions]
        for function, server, result, count in rows.jobs():
            jobs[function].append(((functions[function], servers[server], result), count))
        yield self._counters(
            "gatewayx_jobs",
            "Jobs that have ended for the gateway, by how.",
            ("function", "server", "result"),
            functions,
            jobs,
        )
        yield self._histogram(
            "gatewayx_job_duration_seconds", "From a job's submission to its end.", functions, rows.job_durations()
        )
        tokens = [text_of(name or b"") for name in rows.tokens.names()]
        with_tokens: list[list[tuple[tuple[str, ...], float]]] = [[] for _ in tokens]
        for token, outcome, count in rows.token_requests():
            with_tokens[token].append(((tokens[token], self._outcomes[outcome][0]), count))
        yield self._counters(
            "gatewayx_token_requests",
            "Requests with a token that have ended, by the token's name and what became of them.",
            ("token", "outcome"),
            tokens,
            with_tokens,
        )

    def _counters(
        self,
        name: str,
        documentation: str,
        labels: tuple[str, ...],
        functions: Sequence[str],
        rows: Sequence[Sequence[tuple[tuple[str, ...], float]]],
    ) -> Family:
        make = partial(labelled, CounterMetricFamily, name, documentation, labels)
        parts = [
            Part(function, [labels for labels, _ in found], [count for _, count in found], partial(make, found))
            for function, found in zip(functions, rows, strict=True)
            if found
        ]
        return Family(make(()), parts)

    def _histogram(
        self, name: str, documentation: str, functions: Sequence[str], durations: Iterable[Duration]
    ) -> Family:
        def make(rows: Iterable[Duration]) -> HistogramMetricFamily:
            family = HistogramMetricFamily(name, documentation, labels=("function",))
            for function, counts, sum_s in rows:
                family.add_metric((functions[function],), list(zip(self._bounds, counts, strict=True)), sum_s)
            return family

        parts = [
            # Behind the buckets comes their count, which is that of the last one.
            Part(functions[row[0]], None, (*row[1], row[1][-1], row[2]), partial(make, (row,)))
            for row in durations
        ]
        return Family(make(()), parts)
