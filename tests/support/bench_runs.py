"""Results of `gatewayx bench` made up for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from gatewayx.bench.result import Bytes, Flood, Generator, GoodTraffic, Latency, Point, Run, Server


def make_latency(p50_s: float = 0.001) -> Latency:
    """Percentiles that grow from `p50_s`."""
    return Latency(p50_s, 2 * p50_s, 5 * p50_s, 10 * p50_s, 20 * p50_s, 50 * p50_s, 1.2 * p50_s)


def make_point(at_s: float = 1.0, **changes: Any) -> Point:
    """One second of a thousand requests."""
    point = Point(
        at_s=at_s,
        seconds=1.0,
        requests=1000,
        rps=1000.0,
        errors=0,
        p50_s=0.001,
        p99_s=0.005,
        server_cpu_share=0.5,
        server_memory_bytes=50 * 1024**2,
        phase="load",
    )
    return msgspec.structs.replace(point, **changes)


def make_points(count: int = 20, spread: float = 0.01, scale: float = 1.0, **changes: Any) -> list[Point]:
    """Intervals whose requests, percentiles and processor time swing by `spread` about `scale` times the usual."""
    points = []
    for number in range(count):
        # No two halves of a swing in one batch cancel each other: the period is 3.
        factor = scale * (1 + spread * (number % 3 - 1))
        values: dict[str, Any] = {
            "rps": 1000 * factor,
            "p50_s": 0.001 * factor,
            "p99_s": 0.005 * factor,
            "server_cpu_share": 0.5 * factor,
            "server_memory_bytes": 50 * 1024**2 + number * 1024,
        }
        points.append(make_point(at_s=number + 1.0, **{**values, **changes}))
    return points


def make_good(**changes: Any) -> GoodTraffic:
    """Five seconds of good clients."""
    good = GoodTraffic(seconds=5.0, requests=5000, rps=1000.0, errors=0, p50_s=0.001, p99_s=0.005)
    return msgspec.structs.replace(good, **changes)


def make_flood(**changes: Any) -> Flood:
    """A flood of connections that was answered with 503."""
    flood = Flood(
        kind="idle",
        connections=10_000,
        rate=None,
        seconds=5.0,
        opened=12_000,
        rate_reached=2400.0,
        highest_open=10_000,
        left_open=9000,
        statuses={"503": 2500},
        closed_silently=400,
        resets=90,
        failed=10,
        good_connections=8,
        before=make_good(),
        during=make_good(rps=800.0, requests=4000, p99_s=0.02),
        after=make_good(),
    )
    return msgspec.structs.replace(flood, **changes)


def make_server(**changes: Any) -> Server:
    """A server that took half a core."""
    server = Server(
        pid=4321,
        processes=2,
        cpu_s=10.0,
        memory_start_bytes=40 * 1024**2,
        memory_peak_bytes=64 * 1024**2,
        memory_end_bytes=48 * 1024**2,
        memory_growth_bytes=1024**2,
        memory_slope_bytes_per_s=100.0,
        ended_at_s=None,
    )
    return msgspec.structs.replace(server, **changes)


def make_generator(**changes: Any) -> Generator:
    """A generator with room to spare."""
    generator = Generator(
        processes=1,
        cpu_s=6.0,
        cpu_share=0.3,
        waited_share=0.01,
        late_p99_s=0.0001,
        late_max_s=0.001,
        failed_connects={},
        limited=False,
        reasons=[],
    )
    return msgspec.structs.replace(generator, **changes)


def make_run(name: str = "load", **changes: Any) -> Run:
    """Twenty seconds of a thousand requests each, fifty of them answered with 503; `changes` replace fields."""
    run = Run(
        name=name,
        target="http://127.0.0.1:8080/echo",
        settings={"connections": 64, "duration": 20, "body": "hello"},
        date="2026-01-02T03:04:05+00:00",
        version="1.2.3",
        machine={"cpu": "A processor", "cores": 8, "kernel": "6.1"},
        seconds=20.0,
        requests=20_000,
        rps=997.5,
        rate_reached=None,
        latency_s=make_latency(),
        latency_uncorrected_s=make_latency(),
        statuses={"200": 19_950, "503": 50},
        bad_response=None,
        errors={"status": 50},
        bytes=Bytes(sent=2_000_000, received=3_000_000),
        generator=make_generator(),
        server=make_server(),
        flood=None,
        timeline=make_points(),
        histogram=[(0.0008, 10_000), (0.0012, 8000), (0.003, 1800), (0.006, 190), (0.05, 10)],
        expectations=[],
    )
    return msgspec.structs.replace(run, **changes)


def make_flood_run(name: str = "flood", **changes: Any) -> Run:
    """Fifteen seconds with a flood in the middle five."""
    phases = ["before"] * 5 + ["during"] * 5 + ["after"] * 5
    timeline = [
        msgspec.structs.replace(point, phase=phase) for point, phase in zip(make_points(15), phases, strict=True)
    ]
    return make_run(name, **{"seconds": 15.0, "flood": make_flood(), "timeline": timeline, **changes})


def phases_of(run: Run) -> list[str]:
    """The phases of a flood in its timeline, which come one after the other.

    One over which the machine stood still has no point of its own.
    """
    phases = list(dict.fromkeys(point.phase for point in run.timeline))
    assert phases == [phase for phase in ("before", "during", "after") if phase in phases]
    return phases
