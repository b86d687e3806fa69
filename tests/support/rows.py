"""Counts of requests and jobs that a test makes up."""

from __future__ import annotations

from collections.abc import Sequence

BOUNDS_S = (0.001, 0.0025, 1, 60)
OUTCOMES = (("ok", 200), ("no-job-server", 503))


class Names:
    """Names by place."""

    def __init__(self, *names: bytes) -> None:
        self._names = names

    def names(self) -> Sequence[bytes]:
        """All of them."""
        return self._names


class Rows:
    """Counts of these functions, with the interface of core/metrics."""

    def __init__(self, *functions: bytes) -> None:
        self.functions = Names(b"_other", *functions)
        self.servers = Names(b"127.0.0.1:4730")
        self.tokens = Names(b"_other", b"shop")
        self.count = 3
        self.asked = 0

    def requests(self):
        """See core/metrics."""
        return [
            ("POST", outcome, place, self.count) for place in range(len(self.functions.names())) for outcome in (0, 1)
        ]

    def token_requests(self):
        """See core/metrics."""
        return [(1, 0, self.count)]

    def durations(self):
        """See core/metrics."""
        self.asked += 1
        return [(place, (1, 2, 3, 3, self.count), 0.5) for place in range(len(self.functions.names()))]

    def jobs(self):
        """See core/metrics."""
        return [(place, 0, "complete", self.count) for place in range(len(self.functions.names()))]

    def job_durations(self):
        """See core/metrics."""
        return [(0, (0, 0, 0, 0, 0), 0.0)]
