"""What the job servers have told by text, summed over functions and job servers."""

from __future__ import annotations

from collections.abc import Mapping

from gatewayx.admin.view import OTHER_FUNCTION, FunctionView, GatewayView

NOTHING = FunctionView(0, 0, 0)


def _sum(one: FunctionView, other: FunctionView) -> FunctionView:
    return FunctionView(one.jobs + other.jobs, one.running + other.running, one.workers + other.workers)


def with_others(known: Mapping[bytes, FunctionView], in_all: FunctionView) -> dict[bytes, FunctionView]:
    """What a job server has told of the functions that have a place; all others together are OTHER_FUNCTION.

    in_all: of all functions that it has. So nobody counts those that have no place, of which there may be any number.
    """
    others = in_all
    for counts in known.values():
        others = FunctionView(
            max(0, others.jobs - counts.jobs),
            max(0, others.running - counts.running),
            max(0, others.workers - counts.workers),
        )
    return {OTHER_FUNCTION: others, **known}


def by_function(view: GatewayView) -> Mapping[bytes, FunctionView]:
    """By function, over all job servers."""
    found: dict[bytes, FunctionView] = {}
    for server in view.job_servers:
        for name, counts in server.functions.items():
            found[name] = _sum(found.get(name, NOTHING), counts)
    return found
