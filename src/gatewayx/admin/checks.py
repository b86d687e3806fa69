"""The checks of /livez and /readyz: what each says now, and since when.

They are evaluated at each tick of the admin process, and when somebody asks, so that `since` is right to within a tick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from gatewayx.admin.view import GatewayView

# A master that has not looked at its children for so long does not live; it looks once a second.
MASTER_STILL_S = 15.0


class Check(NamedTuple):
    """One check as it is now."""

    name: str
    is_ok: bool
    # Since when, in seconds since the epoch.
    since_s: float
    # What it found, in words.
    detail: str


class Found(NamedTuple):
    """What a check found."""

    is_ok: bool
    detail: str


class Memory(Protocol):
    """Where it is kept since when a check has its state, so that a replaced admin process goes on with it."""

    def recall(self, number: int) -> tuple[bool, float] | None:
        """The state of the check of this number and since when it has it; None if it was never noted."""

    def note(self, number: int, since_s: float, *, is_ok: bool) -> None:
        """The check has this state since then."""


def _master(view: GatewayView) -> Found:
    if view.master_still_s is None:
        return Found(is_ok=False, detail="the master is gone")
    if view.master_still_s >= MASTER_STILL_S:
        return Found(is_ok=False, detail=f"the master has not looked at its processes for {view.master_still_s:.0f} s")
    return Found(is_ok=True, detail="the master looks after its processes")


def _loops(view: GatewayView) -> Found:
    """Fails when no loop has turned for as long as the gateway takes for a hang, and it replaces them one by one."""
    turning = [
        worker
        for worker in view.workers
        if worker.process.process_id and worker.still_s < view.worker_timeout_s and worker.state != "ending"
    ]
    if not turning:
        return Found(
            is_ok=False, detail=f"no worker process has turned its loop for {view.worker_timeout_s:g} s, or none lives"
        )
    return Found(is_ok=True, detail=f"the loops of {len(turning)} of {len(view.workers)} worker processes turn")


def _started(view: GatewayView) -> Found:
    if not view.has_started:
        return Found(is_ok=False, detail="the first worker processes are not ready yet")
    return Found(is_ok=True, detail="the start is over")


def _workers(view: GatewayView) -> Found:
    ready = sum(worker.state == "ready" for worker in view.workers)
    return Found(is_ok=ready > 0, detail=f"{ready} of {len(view.workers)} worker processes are ready")


def _stop(view: GatewayView) -> Found:
    if view.draining_s:
        return Found(is_ok=False, detail="the gateway is told to stop")
    return Found(is_ok=True, detail="the gateway is not told to stop")


def _job_servers(requires: str) -> Callable[[GatewayView], Found]:
    def look(view: GatewayView) -> Found:
        up = sum(server.is_up for server in view.job_servers)
        told = f"{up} of {len(view.job_servers)} job servers answer, {requires} required"
        if requires == "any":
            return Found(is_ok=up > 0, detail=told)
        if requires == "all":
            return Found(is_ok=view.all_job_servers_up, detail=told)
        return Found(is_ok=True, detail=told)

    return look


# By endpoint, the names of its checks in their order.
LIVE = "livez"
READY = "readyz"
CHECKS = {LIVE: ("master", "worker-loops"), READY: ("started", "workers", "stop", "job-servers")}
NUMBERS = {name: number for number, name in enumerate(name for names in CHECKS.values() for name in names)}


class Health:
    """All checks.

    memory: keeps since when. ready_requires: of how many job servers /readyz requires that they answer.
    """

    def __init__(self, memory: Memory, ready_requires: str) -> None:
        self._memory = memory
        self._now: dict[str, Check] = {}
        self.change(ready_requires)

    def change(self, ready_requires: str) -> None:
        """Be as if it had been made with this."""
        self._looks: dict[str, Callable[[GatewayView], Found]] = {
            "master": _master,
            "worker-loops": _loops,
            "started": _started,
            "workers": _workers,
            "stop": _stop,
            "job-servers": _job_servers(ready_requires),
        }

    def look(self, view: GatewayView) -> None:
        """Evaluate all of them."""
        for name, number in NUMBERS.items():
            found = self._looks[name](view)
            noted = self._memory.recall(number)
            if name == "job-servers" and not (view.job_servers_asked or found.is_ok) and noted is not None and noted[0]:
                # An admin process that has just begun takes the word of the one before it.
                found = Found(is_ok=True, detail="the job servers are being asked again")
            if noted is None or noted[0] is not found.is_ok:
                noted = (found.is_ok, view.now_s)
                self._memory.note(number, view.now_s, is_ok=found.is_ok)
            self._now[name] = Check(name, found.is_ok, noted[1], found.detail)

    def checks(self, endpoint: str) -> list[Check]:
        """Those of an endpoint, as they were evaluated last."""
        return [self._now[name] for name in CHECKS[endpoint]]
