"""What the job servers have told by text, summed over functions and job servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gatewayx.admin.view import OTHER_FUNCTION, FunctionView, GatewayView

NOTHING = FunctionView(0, 0, 0)


def _sum(one: FunctionView, other: FunctionView) -> FunctionView:
    return FunctionView(one.jobs + other.jobs, one.running + other.running, one.workers + other.workers)


def with_places(told: Iterable[tuple[bytes, FunctionView]], names: Iterable[bytes]) -> dict[bytes, FunctionView]:
    """What one job server has told, for the functions that have a place; all others together are OTHER_FUNCTION.

    told: names of functions as the job server has them. names: of the functions that have a place.
    """
    found = {OTHER_FUNCTION: NOTHING}
    known = frozenset(names)
    for name, counts in told:
        place = name if name in known else OTHER_FUNCTION
        found[place] = _sum(found.get(place, NOTHING), counts)
    return found


def by_function(view: GatewayView) -> Mapping[bytes, FunctionView]:
    """By function, over all job servers."""
    found: dict[bytes, FunctionView] = {}
    for server in view.job_servers:
        for name, counts in server.functions.items():
            found[name] = _sum(found.get(name, NOTHING), counts)
    return found
