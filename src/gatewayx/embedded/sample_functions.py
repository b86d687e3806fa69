"""The functions of the demo's worker; each takes a `worker.AssignedJob`, see `worker.Worker` for how one ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatewayx.embedded.worker import AssignedJob

# `sleep` refuses more, so that a visitor of the demo cannot keep a worker busy for good.
MAX_SLEEP_S = 60.0
# `progress` makes this many steps of this length; so many if it is told how long they take together.
PROGRESS_STEPS = 5
PROGRESS_STEP_S = 0.1
TIMED_PROGRESS_STEPS = 20

DECIMAL = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?\Z")


def reverse(job: AssignedJob) -> bytes:
    """Return the workload's bytes in reverse order."""
    return job.workload[::-1]


def echo(job: AssignedJob) -> bytes:
    """Return the workload."""
    return job.workload


async def sleep(job: AssignedJob) -> bytes | None:
    """Return the workload after as many seconds as it says, a decimal up to MAX_SLEEP_S; fail on anything else."""
    seconds = _seconds(job.workload)
    if seconds is None:
        job.fail()
        return None
    await asyncio.sleep(seconds)
    return job.workload


def fail(job: AssignedJob) -> None:
    """Fail (WORK_FAIL)."""
    job.fail()


def exception(job: AssignedJob) -> None:
    """End with the workload as a WORK_EXCEPTION."""
    job.exception(job.workload)


def warning(job: AssignedJob) -> bytes:
    """Send the workload as a WORK_WARNING, then return it."""
    job.send_warning(job.workload)
    return job.workload


async def progress(job: AssignedJob) -> bytes:
    """Send WORK_STATUS and WORK_DATA, one line a step, and complete with a last line.

    That takes as many seconds as the workload says, a decimal up to MAX_SLEEP_S; with any other workload half a second.
    """
    seconds = _seconds(job.workload)
    steps = PROGRESS_STEPS if seconds is None else TIMED_PROGRESS_STEPS
    for step in range(1, steps + 1):
        await asyncio.sleep(PROGRESS_STEP_S if seconds is None else seconds / steps)
        job.send_status(step, steps)
        job.send_data(b"step %d of %d\n" % (step, steps))
    return b"done\n"


def _seconds(workload: bytes) -> float | None:
    """How many seconds a workload says, a decimal up to MAX_SLEEP_S; None for anything else."""
    if not DECIMAL.match(workload) or float(workload) > MAX_SLEEP_S:
        return None
    return float(workload)


FUNCTIONS: dict[bytes, Callable[[AssignedJob], bytes | Coroutine[Any, Any, bytes | None] | None]] = {
    b"reverse": reverse,
    b"echo": echo,
    b"sleep": sleep,
    b"fail": fail,
    b"exception": exception,
    b"warning": warning,
    b"progress": progress,
}
