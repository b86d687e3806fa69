"""What a measurement found, as it is written to JSON: schema 1. docs/bench.md documents every field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

SCHEMA: Final = 1


class ResultError(Exception):
    """A file that holds no results of `gatewayx bench`: the caller's mistake. The message is one line."""


class Latency(msgspec.Struct, forbid_unknown_fields=True):
    """Percentiles of a latency, in seconds."""

    p50: float
    p90: float
    p99: float
    p999: float
    p9999: float
    max: float
    mean: float


# By the names that people know them by.
LATENCY_FIGURES: Mapping[str, Callable[[Latency], float]] = {
    "p50": lambda latency: latency.p50,
    "p90": lambda latency: latency.p90,
    "p99": lambda latency: latency.p99,
    "p99.9": lambda latency: latency.p999,
    "p99.99": lambda latency: latency.p9999,
    "max": lambda latency: latency.max,
    "mean": lambda latency: latency.mean,
}


class Bytes(msgspec.Struct, forbid_unknown_fields=True):
    """Of HTTP, heads included."""

    sent: int
    received: int


class Server(msgspec.Struct, forbid_unknown_fields=True):
    """The process under test with all its descendants, from /proc."""

    pid: int
    processes: int
    cpu_s: float
    memory_start_bytes: int
    memory_peak_bytes: int
    memory_end_bytes: int
    memory_growth_bytes: int
    memory_slope_bytes_per_s: float
    # When the process was found to have ended; null while it lived.
    ended_at_s: float | None


class Generator(msgspec.Struct, forbid_unknown_fields=True):
    """How the load generator itself fared."""

    processes: int
    cpu_s: float
    # Of one core, of the busiest of its processes: 0 to 1.
    cpu_share: float
    # Ready to run with no processor free, of the process that waited most: 0 to 1.
    waited_share: float
    # From when a request was due, with a connection free for it, until it was sent.
    late_p99_s: float
    late_max_s: float
    # Connections that could not be made, by the name of the error.
    failed_connects: dict[str, int]
    # The figures tell about the generator and not about the target, for these reasons.
    limited: bool
    reasons: list[str]


class Point(msgspec.Struct, forbid_unknown_fields=True):
    """What happened in one interval."""

    # Its end, since the start.
    at_s: float
    seconds: float
    requests: int
    rps: float
    errors: int
    p50_s: float | None
    p99_s: float | None
    # Processor time over time: 1.0 is one core.
    server_cpu_share: float | None
    server_memory_bytes: int | None
    # "load", or of a flood "before", "during" or "after".
    phase: str


class GoodTraffic(msgspec.Struct, forbid_unknown_fields=True):
    """What good clients saw in one phase of a flood."""

    seconds: float
    requests: int
    rps: float
    errors: int
    p50_s: float | None
    p99_s: float | None


class Flood(msgspec.Struct, forbid_unknown_fields=True):
    """What a flood did and how it was answered."""

    kind: str
    connections: int
    # New connections a second that were asked for; null for as many as go.
    rate: float | None
    seconds: float
    opened: int
    rate_reached: float
    highest_open: int
    left_open: int
    statuses: dict[str, int]
    closed_silently: int
    resets: int
    failed: int
    good_connections: int
    before: GoodTraffic
    during: GoodTraffic
    after: GoodTraffic


class Expectation(msgspec.Struct, forbid_unknown_fields=True):
    """What --expect asked for and what was found."""

    text: str
    measured: float | None
    passed: bool


class Verdict(msgspec.Struct, forbid_unknown_fields=True):
    """One line of the table that a command of several runs ends with."""

    name: str
    # One text for each target, by its name.
    measured: dict[str, str]
    # The first target's figure over the second's; null where one of them is missing.
    ratio: float | None
    verdict: str


class Run(msgspec.Struct, forbid_unknown_fields=True):
    """One measurement."""

    name: str
    target: str
    settings: dict[str, Any]
    date: str
    version: str
    machine: dict[str, Any]
    seconds: float
    # That ended, well or not, and those never sent included.
    requests: int
    # Answers that came within `seconds`, a second.
    rps: float
    # Requests that were sent, a second; null without --rate.
    rate_reached: float | None
    # From when a request was due; without --rate from when it was sent.
    latency_s: Latency | None
    # From when it was sent.
    latency_uncorrected_s: Latency | None
    # Every answer, by status.
    statuses: dict[str, int]
    # What was wrong with the last bad_response; null without one.
    bad_response: str | None
    # By kind: connect, reset, timeout, bad_response, status (400 and above), not_sent.
    errors: dict[str, int]
    bytes: Bytes
    generator: Generator
    server: Server | None
    flood: Flood | None
    timeline: list[Point]
    # Latency and how many requests had it, for curves: the whole of the histogram behind latency_s.
    histogram: list[tuple[float, int]]
    expectations: list[Expectation]
    schema: Literal[1] = SCHEMA

    @property
    def error_count(self) -> int:
        """Requests that did not get a good answer."""
        return sum(self.errors.values())

    @property
    def error_share(self) -> float:
        """Of all requests, 0 to 1; 0 without any."""
        return self.error_count / self.requests if self.requests else 0.0


class Runs(msgspec.Struct, forbid_unknown_fields=True):
    """Several measurements and what they come to."""

    runs: list[Run]
    verdicts: list[Verdict]
    schema: Literal[1] = SCHEMA


def encode(result: Run | Runs) -> bytes:
    """JSON with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def decode(text: bytes, name: str) -> list[Run]:
    """The runs of a file called `name`: of one measurement or of several. Raises ResultError."""
    try:
        several = b'"runs"' in text and "runs" in msgspec.json.decode(text)
        if several:
            return msgspec.json.decode(text, type=Runs).runs
        return [msgspec.json.decode(text, type=Run)]
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
        raise ResultError(f"{name} holds no results of gatewayx bench: {error}") from None
