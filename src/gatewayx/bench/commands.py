"""`gatewayx bench`: its commands, one thin function each."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from gatewayx.bench import compare as comparing
from gatewayx.bench import expectations, report, result
from gatewayx.bench.display import Display, display, summary, verdict_table
from gatewayx.bench.errors import RunError, UseError
from gatewayx.bench.flood import KIND_NAMES, MIXED
from gatewayx.bench.measurement import Measurement
from gatewayx.bench.plan import FloodSettings, LoadSettings, Target
from gatewayx.bench.sampling import find_process
from gatewayx.bench.template import CHECKS, LEAST_UNIQUE_BYTES

EXIT_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_EXPECTATION = 99
STANDARD_OUTPUT = 1

MAX_CONNECTIONS = 50_000
MAX_PIPELINE = 1024
MAX_PROCESSES = 64
MAX_RATE = 10_000_000
MAX_DURATION_S = 86_400.0
MAX_BODY_BYTES = 64 * 1024 * 1024

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., object])
Result = result.Run | result.Runs


def _options(*options: Callable[[AnyFunction], AnyFunction]) -> Callable[[AnyFunction], AnyFunction]:
    def decorate(command: AnyFunction) -> AnyFunction:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class NumberRange(click.FloatRange):
    """A range that NaN is not in: no comparison with a bound tells so."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, parameter, context)
        if math.isnan(number):
            self.fail(f"{value} is no number.", parameter, context)
        return number


def _seconds(lowest: float) -> NumberRange:
    return NumberRange(lowest, MAX_DURATION_S)


request_options = _options(
    click.option("--method", default="POST", show_default=True, metavar="METHOD", help="Of every request."),
    click.option("--body", metavar="TEXT|@FILE", help="What to send, or the file that has it."),
    click.option("--body-size", type=click.IntRange(0, MAX_BODY_BYTES), metavar="BYTES", help="Send so many bytes."),
    click.option(
        "--unique-bodies", is_flag=True, help="Number every body, so that no two are alike; it begins with the number."
    ),
    click.option("--background", is_flag=True, help="Ask for background jobs (X-Gearman-Background: true)."),
    click.option(
        "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; may be repeated."
    ),
    click.option(
        "--check",
        type=click.Choice(sorted(CHECKS)),
        default="framing",
        show_default=True,
        help="What an answer's body must be besides well framed: as long as what was sent, the same, or reversed.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=_seconds(0.05),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="For an answer; a request without one by then has failed.",
    ),
)
target_options = _options(
    click.option("--pid", type=click.IntRange(1), help="Sample this process and its descendants."),
    click.option("--process", "process_name", metavar="NAME", help="Sample the process of this name."),
    click.option("--allow-remote", is_flag=True, help="Load a machine other than this one."),
)
output_options = _options(
    click.option("--json", "json_path", metavar="FILE|-", help="Write the result as JSON; - for standard output."),
    click.option("--html", "html_path", metavar="FILE", help="Write a report; needs gatewayx[bench]."),
)
hdr_option = click.option("--hdr", "hdr_path", metavar="FILE", help="Write the latency as HdrHistogram's text (.hgrm).")
expectation_option = click.option(
    "--expect",
    "expected_texts",
    multiple=True,
    metavar="'p99<20ms'",
    help="Exit with 99 unless this holds; may be repeated. Also errors<0.1%, rps>1000, memory<100MiB, good-p99<50ms …",
)


@click.group("bench", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def bench() -> None:
    """Load an HTTP server and tell the truth about it.

    Exit codes: 0 good, 99 an --expect failed, 1 could not run, 2 wrong use. Ctrl-C ends a run early and still reports.
    """


@bench.command("run")
@click.argument("url")
@_options(
    click.option("--connections", type=click.IntRange(1, MAX_CONNECTIONS), default=64, show_default=True),
    click.option("--duration", "duration_s", type=_seconds(0.1), default=10.0, show_default=True, metavar="SECONDS"),
    click.option(
        "--rate",
        type=NumberRange(0, MAX_RATE, min_open=True),
        metavar="PER_SECOND",
        help="Open loop: so many requests a second are due whatever the server does. Without it each connection sends "
        "its next request when it has its answer.",
    ),
    click.option(
        "--pipeline",
        type=click.IntRange(1, MAX_PIPELINE),
        default=1,
        show_default=True,
        help="Requests under way on a connection at most.",
    ),
    click.option(
        "--processes", type=click.IntRange(1, MAX_PROCESSES), default=1, show_default=True, help="That make load."
    ),
)
@request_options
@target_options
@expectation_option
@hdr_option
@output_options
def run_command(
    url: str,
    connections: int,
    duration_s: float,
    rate: float | None,
    pipeline: int,
    processes: int,
    **common: Any,
) -> None:
    """Load URL and report throughput, latency and errors."""
    _measure(
        "run",
        url,
        common,
        connections=connections,
        duration_s=duration_s,
        rate=rate,
        pipeline=pipeline,
        processes=min(processes, connections),
    )


@bench.command("flood")
@click.argument("url")
@_options(
    click.option(
        "--kind", type=click.Choice(KIND_NAMES), default=MIXED, show_default=True, help="What the flood is of."
    ),
    click.option(
        "--connections",
        type=click.IntRange(1, MAX_CONNECTIONS),
        default=32,
        show_default=True,
        help="Of the flood, open at once at most.",
    ),
    click.option(
        "--rate",
        type=NumberRange(0, MAX_RATE, min_open=True),
        metavar="PER_SECOND",
        help="New connections of the flood a second; as many as go without it.",
    ),
    click.option(
        "--duration",
        "duration_s",
        type=_seconds(0.1),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="Of the flood.",
    ),
    click.option(
        "--calm",
        "calm_s",
        type=_seconds(0.5),
        default=3.0,
        show_default=True,
        metavar="SECONDS",
        help="Good traffic alone, so long before and after the flood.",
    ),
    click.option("--good-connections", type=click.IntRange(1, MAX_CONNECTIONS), default=8, show_default=True),
    click.option(
        "--good-rate",
        type=NumberRange(0, MAX_RATE, min_open=True),
        metavar="PER_SECOND",
        help="Good requests a second (open loop); as fast as they are answered without it.",
    ),
)
@request_options
@target_options
@expectation_option
@hdr_option
@output_options
def flood_command(
    url: str,
    kind: str,
    connections: int,
    rate: float | None,
    duration_s: float,
    calm_s: float,
    good_connections: int,
    good_rate: float | None,
    **common: Any,
) -> None:
    """Flood URL with bad clients, and see what good ones notice.

    bad-line, bad-version, bad-chunk, nul, header-flood and oversize send what is wrong and read the answer; half-head
    and connect leave without one; slow-head and slow-body send a byte a second; no-read sends and never reads; mixed
    takes all in turn.
    """
    flood = FloodSettings(kind, connections, rate, duration_s, calm_s)
    load = {"connections": good_connections, "duration_s": duration_s, "rate": good_rate}
    _measure(f"flood of {kind}", url, common, flood, **load)


def _measure(name: str, url: str, common: dict[str, Any], flood: FloodSettings | None = None, **load: Any) -> NoReturn:
    """Measure once. common: what the options that `run` and `flood` share were given."""
    output = {key: common.pop(key) for key in ("json_path", "html_path", "hdr_path")}
    allow_remote, pid, process_name = (common.pop(key) for key in ("allow_remote", "pid", "process_name"))
    expected = _expected(common.pop("expected_texts"))
    settings = _sorted(lambda: _load_settings(common, **load))
    target = _sorted(lambda: Target.parse(url, allow_remote=allow_remote))
    sampled = _sorted(lambda: _pid(pid, process_name))
    shown = _display(output["html_path"], output["json_path"], output["hdr_path"])
    measurement = _sorted(
        lambda: Measurement(name, target, settings, flood=flood, pid=sampled, progress=shown.progress)
    )
    run = _measured(measurement.run, measurement.stop, shown)
    run.expectations = [expectation.judge(run) for expectation in expected]
    hdr = (output["hdr_path"], measurement)
    _finish(run, [run], output["json_path"], output["html_path"], shown, hdr=hdr)


duration_option = click.option(
    "--duration",
    "duration_s",
    type=_seconds(1.0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Of each run.",
)


@bench.command("plugin")
@duration_option
@output_options
def plugin_command(duration_s: float, json_path: str | None, html_path: str | None) -> None:
    """Compare gatewayx with gearmand's own HTTP plugin.

    Starts gearmand, workers and gateway itself and loads both targets in turns: foreground and background jobs with
    1 to 256 connections, floods, memory. Needs gearmand on PATH.
    """
    _side_by_side(duration_s, json_path, html_path, with_plugin=True)


@bench.command("demo")
@duration_option
@output_options
def demo_command(duration_s: float, json_path: str | None, html_path: str | None) -> None:
    """Measure gatewayx in front of the embedded job server: needs nothing installed."""
    _side_by_side(duration_s, json_path, html_path, with_plugin=False)


@bench.command("compare")
@click.argument("files", nargs=-1, required=True, metavar="A.json B.json …")
def compare_command(files: tuple[str, ...]) -> None:
    """Compare results with those of the first file.

    The table has ratios, and whether a difference is more than the noise within the runs.
    """
    if len(files) < 2:
        _stop("compare needs two files or more", EXIT_WRONG_USE)
    named = []
    for name in files:
        try:
            named.append((name, result.decode(Path(name).read_bytes(), name)))
        except OSError as error:
            _stop(f"cannot read {name}: {error.strerror}", EXIT_FAILED)
        except result.ResultError as error:
            _stop(str(error), EXIT_WRONG_USE)
    click.echo(comparing.table(comparing.comparison(named)), nl=False)


def _side_by_side(duration_s: float, json_path: str | None, html_path: str | None, *, with_plugin: bool) -> None:
    from gatewayx.bench import side_by_side

    shown = _display(html_path, json_path)
    try:
        with side_by_side.Services() as services:
            if with_plugin:
                server_port, plugin = side_by_side.start_gearmand(services)
                others = [plugin]
            else:
                server_port, others = side_by_side.start_embedded_job_server(services), []
            side_by_side.start_workers(services, server_port)
            gateway = side_by_side.start_gateway(services, server_port)
            comparison = side_by_side.Comparison([gateway, *others], server_port, duration_s, shown.progress)
            _measured(comparison.run, comparison.stop, shown)
            verdicts = comparison.verdicts()
    except RunError as error:
        _stop(str(error), EXIT_FAILED)
    _finish(
        result.Runs(comparison.runs, verdicts),
        comparison.runs,
        json_path,
        html_path,
        shown,
        verdicts,
        problem=comparison.problem,
    )


def _load_settings(request: dict[str, Any], **settings: Any) -> LoadSettings:
    body, body_size = request.pop("body"), request.pop("body_size")
    if body is not None and body_size is not None:
        raise UseError("--body and --body-size exclude each other")
    content = None
    if body_size is not None:
        content = b"x" * body_size
    elif body is not None:
        content = _read_body(body)
    if request["unique_bodies"] and len(content or b"") < LEAST_UNIQUE_BYTES:
        raise UseError(f"--unique-bodies needs a body of {LEAST_UNIQUE_BYTES} bytes or more")
    headers = []
    for header in request.pop("headers"):
        name, colon, value = header.partition(":")
        if not colon:
            raise UseError(f"-H {header!a} is not of the form 'Name: value'")
        headers.append((name, value.strip(" \t")))
    request["method"] = request["method"].upper()
    return LoadSettings(body=content, headers=tuple(headers), **request, **settings)


def _read_body(text: str) -> bytes:
    if not text.startswith("@"):
        return os.fsencode(text)
    try:
        with Path(text[1:]).open("rb") as file:
            content = file.read(MAX_BODY_BYTES + 1)
    except OSError as error:
        raise UseError(f"--body {text}: {error.strerror}") from None
    if len(content) > MAX_BODY_BYTES:
        raise UseError(f"--body {text}: more than {MAX_BODY_BYTES} bytes")
    return content


def _pid(pid: int | None, name: str | None) -> int | None:
    if pid is not None and name is not None:
        raise UseError("--pid and --process exclude each other")
    return find_process(name) if name is not None else pid


def _expected(texts: Sequence[str]) -> list[expectations.Expected]:
    try:
        return [expectations.parse(text) for text in texts]
    except ValueError as error:
        _stop(f"--expect: {error}", EXIT_WRONG_USE)


def _display(html_path: str | None, *other_paths: str | None) -> Display:
    """The display; what could not be written at the end is told before anything is measured."""
    for path in (html_path, *other_paths):
        if path not in (None, "-") and not (directory := Path(path).parent).is_dir():
            _stop(f"cannot write {path}: there is no directory {directory}", EXIT_FAILED)
    shown = display()
    if html_path is not None:
        try:
            report.require_plots()
        except report.ReportError as error:
            shown.note(f"gatewayx bench: {error}")
    return shown


AnyResult = TypeVar("AnyResult")


def _sorted(prepare: Callable[[], AnyResult]) -> AnyResult:
    """What `prepare` returns; an error ends the command with the exit code of whose fault it is."""
    try:
        return prepare()
    except UseError as error:
        _stop(str(error), EXIT_WRONG_USE)
    except RunError as error:
        _stop(str(error), EXIT_FAILED)


def _measured(
    measure: Callable[[], Coroutine[Any, Any, AnyResult]], stop: Callable[[], None], shown: Display
) -> AnyResult:
    """Run a measurement; Ctrl-C ends it early, a second one at once."""

    async def main() -> AnyResult:
        stopping = False

        def interrupted() -> None:
            nonlocal stopping
            if stopping:
                os._exit(EXIT_FAILED)
            stopping = True
            stop()

        for signal_number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signal_number, interrupted)
        return await measure()

    try:
        return asyncio.run(main())
    except UseError as error:
        shown.close()
        _stop(str(error), EXIT_WRONG_USE)
    except RunError as error:
        shown.close()
        _stop(str(error), EXIT_FAILED)
    finally:
        shown.close()


def _finish(
    measured: Result,
    runs: Sequence[result.Run],
    json_path: str | None,
    html_path: str | None,
    shown: Display,
    verdicts: Sequence[result.Verdict] = (),
    *,
    hdr: tuple[str | None, Measurement] | None = None,
    problem: str = "",
) -> NoReturn:
    """Write what was asked for, tell what was found, end with the exit code. Trouble with one loses no other."""
    problems = [problem] if problem else []
    if json_path is not None:
        problems += _written(json_path, result.encode(measured))
    if hdr is not None and hdr[0] is not None:
        problems += _written(hdr[0], hdr[1].latency.percentile_distribution().encode())
    if html_path is not None and runs:
        try:
            report.write_report(Path(html_path), runs, verdicts)
        except report.ReportError as error:
            if str(error) == report.NO_PLOTS:
                shown.note(f"gatewayx bench: no report is written: {error}")
            else:
                problems.append(str(error))
    told = verdict_table(verdicts) if verdicts else "\n".join(summary(run) for run in runs)
    try:
        click.echo(told, err=json_path == "-")
    except OSError as error:
        problems.append(f"cannot tell what was found: {error.strerror}")
    if problems:
        _stop("; ".join(problems), EXIT_FAILED)
    failed = any(not expectation.passed for run in runs for expectation in run.expectations)
    _exit(EXIT_EXPECTATION if failed else 0)


def _written(path: str, content: bytes) -> list[str]:
    """Write a file; what went wrong, if anything."""
    try:
        if path == "-":
            with os.fdopen(os.dup(STANDARD_OUTPUT), "wb") as output:
                output.write(content)
        else:
            Path(path).write_bytes(content)
    except OSError as error:
        return [f"cannot write {path}: {error.strerror}"]
    return []


def _exit(exit_code: int) -> NoReturn:
    """End, also when nobody reads what was told: Python would complain at its own flush and change the code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(exit_code)


def _stop(problem: str, exit_code: int) -> NoReturn:
    with contextlib.suppress(OSError):
        click.echo(f"gatewayx bench: {problem}", err=True)
    _exit(exit_code)
