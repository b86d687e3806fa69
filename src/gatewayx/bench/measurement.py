"""One measurement: starts the processes that make the load, samples the target meanwhile, writes down the result."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gatewayx import __version__
from gatewayx.bench.errors import RunError
from gatewayx.bench.plan import (
    Failed,
    FloodEnd,
    FloodPlan,
    FloodSettings,
    FloodSnapshot,
    LoadEnd,
    LoadSettings,
    LoadSnapshot,
    Message,
    PhaseEnd,
    Ready,
    Target,
    Window,
    load_plans,
)
from gatewayx.bench.result import Bytes, Flood, Generator, GoodTraffic, Latency, Point, Run, Server
from gatewayx.bench.sampling import ProcessTree, Sample, slope_per_s
from gatewayx.core.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_INTERVAL_S = 0.25
MOST_INTERVALS = 240
# Between the word to begin and the beginning, so that every process has heard it.
LEAD_S = 0.1
# A generator that sends later than this, one time in a hundred, is measured and not the target.
MOST_LATENESS_S = 0.001
FULL_CORE_SHARE = 0.95
# A load process that waited for a processor in a larger share of its time measures the want of processors.
WAITING_SHARE = 0.2
# Reasons for a failed connect that are not the target's.
OWN_LIMITS = (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS)
# For a process to start and connect, and to say its last words after its requests have timed out.
START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 10.0
# The shortest time that a run which was stopped is said to have lasted: nothing is divided by 0.
LEAST_SECONDS = 0.001
MAX_LINE_BYTES = 16 * 1024 * 1024

AnyKey = TypeVar("AnyKey")

LOAD, BEFORE, DURING, AFTER = "load", "before", "during", "after"


@dataclass
class Progress:
    """What the live display shows, at the end of each interval."""

    name: str
    at_s: float
    duration_s: float
    point: Point
    latency: Histogram
    """Of the whole run so far."""
    memory_start_bytes: int | None
    flood: FloodSnapshot | None


@dataclass
class _Interval:
    """What the load processes have said of one interval; complete once all have."""

    heard: int = 0
    at_ns: int = 0
    good: int = 0
    ended: int = 0
    errors: int = 0
    histogram: Histogram = field(default_factory=Histogram)


class Child:
    """A process that makes load; `messages` come in order, None at their end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._decoder = msgspec.json.Decoder(Message)

    @classmethod
    async def start(cls) -> Child:
        """Start one, in a session of its own: Ctrl-C is for the leader, who passes it on."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gatewayx.bench.process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )
        return cls(process)

    def tell(self, message: msgspec.Struct) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(message) + b"\n")

    def stop(self) -> None:
        """Ask it to end early and tell what there is."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def hear(self, timeout_s: float) -> Message:
        """The next message. Raises RunError when there is none in time or the process has failed."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        except asyncio.TimeoutError:
            raise RunError(f"the load generator said nothing for {timeout_s:g} s") from None
        if not line:
            raise RunError(f"the load generator ended with status {await self._process.wait()}")
        message: Message = self._decoder.decode(line)
        if isinstance(message, Failed):
            raise RunError(f"the load generator cannot run: {message.problem}")
        return message

    async def end(self) -> None:
        """Wait until it is gone, by force if need be."""
        with contextlib.suppress(asyncio.TimeoutError):
            self.stop()
            await asyncio.wait_for(self._process.wait(), 1.0)
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Measurement:
    """One run, with or without a flood.

    name: told in the result. pid: the process to sample; None for none. flood: None for good traffic alone.
    progress: called at the end of each interval.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        load: LoadSettings,
        *,
        flood: FloodSettings | None = None,
        pid: int | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.load = load
        self.flood = flood
        self.progress = progress
        self.duration_s = load.duration_s if flood is None else flood.duration_s + 2 * flood.calm_s
        self.interval_s = max(LEAST_INTERVAL_S, self.duration_s / MOST_INTERVALS)
        self.tree = ProcessTree(pid) if pid is not None else None
        self.points: list[Point] = []
        self.latency = Histogram()
        self._intervals: dict[int, _Interval] = {}
        self._last: list[LoadSnapshot | None] = [None] * load.processes
        self._samples: dict[int, Sample] = {}
        self._flood_now: FloodSnapshot | None = None
        self._stopped = False
        self._stopped_ns = 0
        self._children: list[Child] = []
        self._begins_ns = 0
        self._last_at_s = 0.0
        self._target_ended_at_s: float | None = None

    def stop(self) -> None:
        """End early; the result tells what there is by then."""
        if not self._stopped:
            self._stopped_ns = time.monotonic_ns()
        self._stopped = True
        for child in self._children:
            child.stop()

    async def run(self) -> Run:
        """Measure. Raises RunError when nothing could be."""
        start = self.tree.last if self.tree is not None else None
        try:
            return await self._run(start)
        finally:
            await asyncio.gather(*(child.end() for child in self._children))

    async def _run(self, start: Sample | None) -> Run:
        plans = load_plans(self.target, self.load, self.interval_s)
        loads = [await self._start_child(plan) for plan in plans]
        flooder = await self._start_child(self._flood_plan(self.flood)) if self.flood is not None else None
        ready = [await child.hear(START_TIMEOUT_S) for child in self._children]
        self._check_connected([message for message in ready[: len(loads)] if isinstance(message, Ready)])
        if self._stopped:
            raise RunError("stopped before anything was measured")
        self._begins_ns = time.monotonic_ns() + round(LEAD_S * 1e9)
        flood_window = Window(0, 0)
        if flooder is not None and self.flood is not None:
            begins_ns = self._begins_ns + round(self.flood.calm_s * 1e9)
            flood_window = Window(begins_ns, begins_ns + round(self.flood.duration_s * 1e9))
            flooder.tell(flood_window)
        ends_ns = self._begins_ns + round(self.duration_s * 1e9)
        for child in loads:
            child.tell(Window(self._begins_ns, ends_ns, flood_window.begins_ns, flood_window.ends_ns))
        sampling = asyncio.create_task(self._sample()) if self.tree is not None else None
        hearing = [asyncio.ensure_future(self._hear_load(number, child)) for number, child in enumerate(loads)]
        flooding = asyncio.ensure_future(self._hear_flood(flooder)) if flooder is not None else None
        everyone = [*hearing, *filter(None, (flooding,))]
        try:
            # The death of any load process ends the run at once.
            await asyncio.gather(*everyone)
        finally:
            for task in filter(None, (sampling, *everyone)):
                task.cancel()
        return self._result([task.result() for task in hearing], flooding.result() if flooding else None, start)

    async def _start_child(self, plan: msgspec.Struct) -> Child:
        child = await Child.start()
        self._children.append(child)
        child.tell(plan)
        return child

    def _flood_plan(self, flood: FloodSettings) -> FloodPlan:
        return FloodPlan(
            address=self.target.address,
            port=self.target.port,
            sources=self.target.flood_sources,
            path=self.target.path.partition("?")[0].encode(),
            host=self.target.host.encode(),
            kind=flood.kind,
            connections=flood.connections,
            rate=flood.rate or 0.0,
            interval_s=self.interval_s,
        )

    def _check_connected(self, ready: list[Ready]) -> None:
        connected = sum(message.connected for message in ready)
        if connected:
            return
        error = next((message.connect_errno for message in ready if message.connect_errno), 0)
        reason = os.strerror(error) if error else "no answer"
        raise RunError(f"cannot connect to {self.target.host} ({self.target.address}:{self.target.port}): {reason}")

    async def _hear_load(self, number: int, child: Child) -> LoadEnd:
        timeout_s = self.interval_s + self.load.timeout_s + END_TIMEOUT_S
        while True:
            message = await child.hear(timeout_s)
            if isinstance(message, LoadEnd):
                return message
            if isinstance(message, LoadSnapshot):
                self._take(number, message)

    async def _hear_flood(self, child: Child) -> FloodEnd:
        while True:
            message = await child.hear(self.duration_s + END_TIMEOUT_S)
            if isinstance(message, FloodEnd):
                return message
            if isinstance(message, FloodSnapshot):
                self._flood_now = message

    def _take(self, process: int, snapshot: LoadSnapshot) -> None:
        """Add a process's interval; once all processes have told theirs, it is a point of the timeline."""
        interval = self._intervals.setdefault(snapshot.number, _Interval())
        last = self._last[process]
        interval.heard += 1
        interval.at_ns = max(interval.at_ns, snapshot.at_ns)
        interval.good += snapshot.good - (last.good if last else 0)
        interval.ended += snapshot.ended - (last.ended if last else 0)
        interval.errors += sum(snapshot.errors.values()) - (sum(last.errors.values()) if last else 0)
        interval.histogram.add_state(snapshot.interval)
        self._last[process] = snapshot
        if interval.heard == len(self._last):
            del self._intervals[snapshot.number]
            self._add_point(snapshot.number, interval)

    def _add_point(self, number: int, interval: _Interval) -> None:
        at_s = (interval.at_ns - self._begins_ns) / 1e9
        seconds = max(at_s - self._last_at_s, 1e-9)
        phase = self._phase((at_s + self._last_at_s) / 2)
        self._last_at_s = at_s
        histogram = interval.histogram
        self.latency.add(histogram)
        sample, before = self._samples.get(number), self._samples.get(number - 1)
        point = Point(
            at_s=round(at_s, 3),
            seconds=seconds,
            requests=interval.ended,
            rps=interval.good / seconds,
            errors=interval.errors,
            p50_s=histogram.percentile_s(50) if histogram.count else None,
            p99_s=histogram.percentile_s(99) if histogram.count else None,
            server_cpu_share=(sample.cpu_s - before.cpu_s) / self.interval_s if sample and before else None,
            server_memory_bytes=sample.memory_bytes if sample else None,
            phase=phase,
        )
        self.points.append(point)
        if self.progress is not None:
            first = next(iter(self._samples.values()), None)
            memory_start_bytes = None if first is None else first.memory_bytes
            self.progress(
                Progress(self.name, at_s, self.duration_s, point, self.latency, memory_start_bytes, self._flood_now)
            )

    def _phase(self, at_s: float) -> str:
        if self.flood is None:
            return LOAD
        if at_s < self.flood.calm_s:
            return BEFORE
        return DURING if at_s < self.flood.calm_s + self.flood.duration_s else AFTER

    async def _sample(self) -> None:
        """Look at the target at the end of each interval, a little earlier than the processes tell of it."""
        assert self.tree is not None
        number = -1
        while True:
            due_s = (self._begins_ns - time.monotonic_ns()) / 1e9 + (number + 1) * self.interval_s
            await asyncio.sleep(max(0.0, due_s))
            sample = self.tree.sample()
            if sample is None:
                self._target_ended_at_s = (time.monotonic_ns() - self._begins_ns) / 1e9
                return
            self._samples[number] = sample
            number += 1

    def _result(self, ends: list[LoadEnd], flood_end: FloodEnd | None, start: Sample | None) -> Run:
        latency, uncorrected, lateness = Histogram(), Histogram(), Histogram()
        errors: dict[str, int] = {}
        statuses: dict[str, int] = {}
        for end in ends:
            latency.add_state(end.latency)
            uncorrected.add_state(end.uncorrected)
            lateness.add_state(end.lateness)
            _add_counts(errors, end.snapshot.errors)
            _add_counts(statuses, end.snapshot.statuses)
        # Requests that ended after the last interval are in no interval.
        self.latency = latency
        seconds = self._seconds()
        sent_in_time = sum(end.snapshot.sent_in_time for end in ends)
        open_loop = self.load.rate is not None
        settings = self.load.described() | {"duration_s": self.duration_s, "ended_early": self._stopped}
        if self.flood is not None:
            settings |= self.flood.described()
        return Run(
            name=self.name,
            target=self.target.url,
            settings=settings,
            date=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            version=__version__,
            machine=machine(),
            seconds=seconds,
            requests=sum(end.snapshot.good for end in ends) + sum(errors.values()),
            rps=sum(end.snapshot.good_in_time for end in ends) / seconds,
            rate_reached=sent_in_time / seconds if open_loop else None,
            latency_s=_latency(latency),
            latency_uncorrected_s=_latency(uncorrected if open_loop else latency),
            statuses=statuses,
            bad_response=next((end.bad_response for end in ends if end.bad_response), None),
            errors=errors,
            bytes=Bytes(
                sent=sum(end.snapshot.sent_bytes for end in ends),
                received=sum(end.snapshot.received_bytes for end in ends),
            ),
            generator=self._generator(ends, lateness),
            server=self._server(start),
            flood=self._flood(flood_end, ends, seconds) if flood_end is not None else None,
            timeline=self.points,
            histogram=latency.buckets(),
            expectations=[],
        )

    def _seconds(self) -> float:
        """How long requests were sent."""
        if not self._stopped:
            return self.duration_s
        return min(self.duration_s, max(LEAST_SECONDS, (self._stopped_ns - self._begins_ns) / 1e9))

    def _generator(self, ends: list[LoadEnd], lateness: Histogram) -> Generator:
        share = max(end.cpu_s / end.elapsed_s for end in ends)
        waited_share = max(end.waited_s / end.elapsed_s for end in ends)
        late_p99_s = lateness.percentile_s(99)
        failed_connects: dict[int, int] = {}
        for end in ends:
            _add_counts(failed_connects, end.failed_connects)
        reasons = []
        if share >= FULL_CORE_SHARE:
            reasons.append(f"a load process used {share:.0%} of its core: --processes more, or fewer requests")
        if waited_share >= WAITING_SHARE:
            reasons.append(f"a load process waited {waited_share:.0%} of the time for a processor that others had")
        if late_p99_s > MOST_LATENESS_S:
            late = f"{1e3 * late_p99_s:.1f} ms late or more, with a connection free"
            reasons.append(f"one request in a hundred was sent {late}")
        for error, count in failed_connects.items():
            if error in OWN_LIMITS:
                reasons.append(f"{count:,} connections could not be made: {os.strerror(error)} on this side")
        return Generator(
            processes=len(ends),
            cpu_s=sum(end.cpu_s for end in ends),
            cpu_share=share,
            waited_share=waited_share,
            late_p99_s=late_p99_s,
            late_max_s=lateness.max_s,
            failed_connects={errno.errorcode.get(error, str(error)): n for error, n in failed_connects.items()},
            limited=bool(reasons),
            reasons=reasons,
        )

    def _server(self, start: Sample | None) -> Server | None:
        if self.tree is None or start is None or not (self._samples or self._target_ended_at_s is not None):
            return None
        # One that ended before the first of them is told of too.
        samples = self._samples or {-1: start}
        first = samples[min(samples)]
        end = self.tree.sample() or self.tree.last
        peak_bytes = max(start.memory_bytes, end.memory_bytes, *(sample.memory_bytes for sample in samples.values()))
        return Server(
            pid=self.tree.pid,
            processes=end.processes,
            cpu_s=end.cpu_s - first.cpu_s,
            memory_start_bytes=start.memory_bytes,
            memory_peak_bytes=peak_bytes,
            memory_end_bytes=end.memory_bytes,
            memory_growth_bytes=end.memory_bytes - start.memory_bytes,
            memory_slope_bytes_per_s=slope_per_s(
                [(number * self.interval_s, float(sample.memory_bytes)) for number, sample in samples.items()]
            ),
            ended_at_s=self._target_ended_at_s,
        )

    def _flood(self, end: FloodEnd, ends: list[LoadEnd], run_seconds: float) -> Flood:
        assert self.flood is not None
        calm_s, flood_s = self.flood.calm_s, self.flood.duration_s
        borders_s = [min(border_s, run_seconds) for border_s in (0.0, calm_s, calm_s + flood_s, self.duration_s)]
        before, during, after = (
            _good_traffic([end.phases[phase] for end in ends], borders_s[phase + 1] - borders_s[phase])
            for phase in range(3)
        )
        told = end.snapshot
        seconds = max(end.elapsed_s, 1e-9)
        return Flood(
            kind=self.flood.kind,
            connections=self.flood.connections,
            rate=self.flood.rate,
            seconds=seconds,
            opened=told.opened,
            rate_reached=(told.opened - told.failed) / seconds,
            highest_open=told.highest_open,
            left_open=told.open_now,
            statuses=told.statuses,
            closed_silently=told.closed_silently,
            resets=told.resets,
            failed=told.failed,
            good_connections=self.load.connections,
            before=before,
            during=during,
            after=after,
        )


def _good_traffic(phases: list[PhaseEnd], seconds: float) -> GoodTraffic:
    """What became of the requests that were due in one phase, of all processes together."""
    histogram = Histogram()
    for phase in phases:
        histogram.add_state(phase.latency)
    good = sum(phase.good for phase in phases)
    failed = sum(phase.failed for phase in phases)
    return GoodTraffic(
        seconds=seconds,
        requests=good + failed,
        rps=good / seconds if seconds else 0.0,
        errors=failed,
        p50_s=histogram.percentile_s(50) if histogram.count else None,
        p99_s=histogram.percentile_s(99) if histogram.count else None,
    )


def machine() -> dict[str, object]:
    """Where it was measured."""
    processor = "unknown"
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _add_counts(totals: dict[AnyKey, int], counts: dict[AnyKey, int]) -> None:
    for key, count in counts.items():
        totals[key] = totals.get(key, 0) + count


def _latency(histogram: Histogram) -> Latency | None:
    if not histogram.count:
        return None
    p50, p90, p99, p999, p9999 = (histogram.percentile_s(percentile) for percentile in (50, 90, 99, 99.9, 99.99))
    return Latency(p50, p90, p99, p999, p9999, histogram.max_s, histogram.mean_s)
