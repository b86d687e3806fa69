"""One function changes a state, and knows which state may follow which: all pairs, of jobs and of connections."""

import asyncio
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import pytest

from gatewayx.core.turns import Turn
from gatewayx.errors import StateError
from gatewayx.gearman.job import Job, JobState
from gatewayx.gearman.upstream import UpstreamConnection, UpstreamState

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"

# What may follow each state, written down here once more.
JOB = {
    JobState.UNSENT: {JobState.WRITTEN, JobState.ENDED, JobState.ABANDONED},
    JobState.WRITTEN: {JobState.UNSENT, JobState.CREATED, JobState.ENDED, JobState.ABANDONED},
    JobState.CREATED: {JobState.ENDED, JobState.ABANDONED},
    JobState.ABANDONED: {JobState.ENDED},
    JobState.ENDED: set(),
}
UPSTREAM = {
    UpstreamState.CONNECTING: {UpstreamState.GREETING, UpstreamState.CLOSED},
    UpstreamState.GREETING: {UpstreamState.UP, UpstreamState.CLOSED},
    UpstreamState.UP: {UpstreamState.RETIRED, UpstreamState.CLOSED},
    UpstreamState.RETIRED: {UpstreamState.CLOSED},
    UpstreamState.CLOSED: set(),
}


def path_to(state: IntEnum, following: dict, path: tuple = ()) -> tuple:
    """The states on a shortest way from the first one of the table to this one, itself included."""
    ways = [[next(iter(following))]]
    while ways[0][-1] != state:
        way = ways.pop(0)
        ways.extend([*way, then] for then in following[way[-1]] if then not in way)
    return tuple(ways[0][1:])


def pairs(following: dict) -> list:
    return [pytest.param(state, then, id=f"{state.name}-{then.name}") for state in following for then in following]


def walk(make: Callable, following: dict, state: IntEnum, then: IntEnum) -> None:
    subject = make()
    for step in path_to(state, following):
        subject.change(step)
    assert subject.state == state
    if then in following[state]:
        subject.change(then)
        assert subject.state == then
    else:
        with pytest.raises(StateError, match=f"cannot go from {state.name} to {then.name}"):
            subject.change(then)
        assert subject.state == state


@pytest.mark.parametrize(("state", "then"), pairs(JOB))
def test_a_job_goes_to_the_states_that_may_follow_its_own_and_to_no_other(state, then) -> None:
    walk(Job, JOB, state, then)


@pytest.mark.parametrize("state", [state for state in JOB if state < JobState.ENDED])
@pytest.mark.parametrize("last", [JobState.ENDED, JobState.ABANDONED])
def test_a_job_that_nobody_waits_for_still_tells_how_far_it_had_come(state, last) -> None:
    job = Job()
    for step in (*path_to(state, JOB), last):
        job.change(step)
    assert job.reached == state


def test_the_end_of_an_abandoned_job_does_not_change_how_far_it_had_come() -> None:
    job = Job()
    for step in (JobState.WRITTEN, JobState.ABANDONED, JobState.ENDED):
        job.change(step)
    assert job.reached == JobState.WRITTEN


@pytest.mark.parametrize(("state", "then"), pairs(UPSTREAM))
def test_a_connection_goes_to_the_states_that_may_follow_its_own_and_to_no_other(state, then) -> None:
    loop = asyncio.new_event_loop()
    try:
        walk(lambda: UpstreamConnection(loop, Turn(loop)), UPSTREAM, state, then)
    finally:
        loop.close()


def drawn(heading: str) -> set[tuple[str, str]]:
    """The arrows of the diagram below the heading in docs/architecture.md, as pairs of names."""
    section = ARCHITECTURE.read_text().partition(f"\n### {heading}\n")[2]
    diagram = section.partition("```mermaid\n")[2].partition("```")[0]
    arrows = [line.partition(":")[0].split(" --> ") for line in diagram.splitlines() if " --> " in line]
    return {(state.strip(), then.strip()) for state, then in arrows if "[*]" not in (state.strip(), then.strip())}


@pytest.mark.parametrize(
    ("heading", "following"),
    [("States of a job", JOB), ("States of a connection to a job server", UPSTREAM)],
    ids=["job", "upstream"],
)
def test_the_diagram_in_the_documents_has_the_arrows_that_the_code_allows(heading, following) -> None:
    assert drawn(heading) == {(state.name, then.name) for state in following for then in following[state]}
