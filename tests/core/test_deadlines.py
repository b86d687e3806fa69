"""The wheel of deadlines: never early, at most two ticks late, and nothing left of what was disarmed."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayx.core.deadlines import DeadlineWheel, Expiring

TICK_S = 0.125
# A power of two, so that sums of ticks are exact.
START_S = 1024.0
REVOLUTION_TICKS = 512


class Deadline(Expiring):
    """Keeps when it fired, in `fired`; then does what `then` says."""

    def __init__(self, fired: list[object], name: object = None, then: Callable[[], None] | None = None) -> None:
        self.fired = fired
        self.name = name
        self.then = then

    def deadline_passed(self) -> int:
        """Expiring."""
        self.fired.append(self.name)
        if self.then is not None:
            self.then()
        return 0


# More than any test arms.
MANY = 1_000_000


@pytest.fixture
def wheel() -> DeadlineWheel:
    """A wheel that starts at START_S."""
    return DeadlineWheel(TICK_S, START_S)


@pytest.fixture
def fired() -> list[object]:
    """The names of what has fired, in order."""
    return []


def advance(wheel: DeadlineWheel, ticks: float) -> int:
    """Let the loop's time be so many ticks after the start; returns how many fired."""
    wheel.advance(START_S + ticks * TICK_S)
    return wheel.fire(MANY)


@pytest.mark.parametrize("since_sweep", [0, 0.9], ids=["armed-at-a-sweep", "armed-between-sweeps"])
@pytest.mark.parametrize("after_ticks", [0.01, 0.5, 1, 1.5, 2, 10, 511, 512, 513, 700, 1024, 5000.25])
def test_one_fires_once_not_early_and_at_most_two_ticks_late(wheel, fired, after_ticks, since_sweep):
    wheel.arm(Deadline(fired, "it"), after_ticks * TICK_S)
    due = since_sweep + after_ticks
    tick = 0
    while not fired:
        tick += 1
        advance(wheel, tick)
    assert due <= tick <= due + 2
    assert wheel.armed == 0
    for later in range(tick + 1, tick + 2 * REVOLUTION_TICKS):
        assert advance(wheel, later) == 0


def test_they_fire_in_the_order_of_their_deadlines(wheel, fired):
    order = [3, 900, 1, 20, 513, 2, 600, 19]
    for after_ticks in order:
        wheel.arm(Deadline(fired, after_ticks), after_ticks * TICK_S)
    assert sum(advance(wheel, tick) for tick in range(1, 1000)) == len(order)
    assert fired == sorted(order)


def test_arming_again_replaces_the_deadline(wheel, fired):
    deadline = Deadline(fired, "it")
    wheel.arm(deadline, 10 * TICK_S)
    wheel.arm(deadline, 100 * TICK_S)
    assert wheel.armed == 1
    assert advance(wheel, 50) == 0
    wheel.arm(deadline, 5 * TICK_S)
    assert advance(wheel, 60) == 1
    assert advance(wheel, 2000) == 0


def test_one_that_is_disarmed_never_fires(wheel, fired):
    deadlines = [Deadline(fired, name) for name in range(3)]
    for deadline in deadlines:
        wheel.arm(deadline, 5 * TICK_S)
    wheel.disarm(deadlines[1])
    wheel.disarm(deadlines[1])
    wheel.disarm(Deadline(fired))
    assert wheel.armed == 2
    advance(wheel, 10)
    assert fired == [0, 2]


@pytest.mark.parametrize("forget", [DeadlineWheel.disarm, DeadlineWheel.put_off], ids=["disarm", "put-off"])
def test_a_handler_may_forget_what_is_due_with_it(wheel, fired, forget):
    second = Deadline(fired, "second")
    first = Deadline(fired, "first", lambda: forget(wheel, second))
    for deadline in (first, second):
        wheel.arm(deadline, 5 * TICK_S)
    assert advance(wheel, 10) == 1
    assert (fired, wheel.armed) == (["first"], 0)


def test_a_handler_may_arm_what_is_due_with_it_anew(wheel, fired):
    second = Deadline(fired, "second")
    first = Deadline(fired, "first", lambda: wheel.arm(second, 20 * TICK_S))
    for deadline in (first, second):
        wheel.arm(deadline, 5 * TICK_S)
    assert advance(wheel, 10) == 1
    assert advance(wheel, 29) == 0
    assert advance(wheel, 32) == 1
    assert fired == ["first", "second"]


@pytest.mark.parametrize("after_ticks", [1, REVOLUTION_TICKS - 1, REVOLUTION_TICKS, REVOLUTION_TICKS + 1])
def test_a_handler_may_arm_itself_again(wheel, fired, after_ticks):
    deadline = Deadline(fired, "it")
    deadline.then = lambda: wheel.arm(deadline, after_ticks * TICK_S)
    wheel.arm(deadline, after_ticks * TICK_S)
    ticks = 10 * (after_ticks + 2)
    for tick in range(1, ticks + 1):
        advance(wheel, tick)
    assert ticks // (after_ticks + 2) <= len(fired) <= ticks // after_ticks
    assert wheel.armed == 1


@pytest.mark.parametrize("stall_ticks", [100, REVOLUTION_TICKS, REVOLUTION_TICKS + 1, 10 * REVOLUTION_TICKS + 3])
def test_after_a_long_stall_everything_due_fires_once_and_nothing_else(wheel, fired, stall_ticks):
    due = [1, 2, 50, stall_ticks - 2]
    for after_ticks in (*due, stall_ticks + 5, stall_ticks + REVOLUTION_TICKS):
        wheel.arm(Deadline(fired, after_ticks), after_ticks * TICK_S)
    assert advance(wheel, stall_ticks) == len(due)
    assert sorted(fired) == due
    assert advance(wheel, stall_ticks + 8) == 1
    assert wheel.armed == 1


def test_time_that_stands_still_or_goes_back_fires_nothing(wheel, fired):
    wheel.arm(Deadline(fired), 0.01)
    assert advance(wheel, 0) == 0
    assert advance(wheel, -100) == 0
    assert wheel.armed == 1
    assert advance(wheel, 2) == 1


def test_fractions_of_a_tick_add_up(wheel, fired):
    wheel.arm(Deadline(fired, "it"), 10 * TICK_S)
    hundredths = 0
    while not fired:
        hundredths += 7
        advance(wheel, hundredths / 100)
    assert 10 <= hundredths / 100 <= 12.1


def test_an_exception_in_one_handler_is_logged_and_stops_no_other(wheel, fired, caplog):
    def fail() -> None:
        raise ArithmeticError("on purpose")

    wheel.arm(Deadline(fired, "bad", fail), 5 * TICK_S)
    wheel.arm(Deadline(fired, "good"), 5 * TICK_S)
    with caplog.at_level(logging.ERROR):
        assert advance(wheel, 10) == 2
    assert fired == ["bad", "good"]
    [record] = caplog.records
    assert isinstance(record.exc_info[1], ArithmeticError)
    assert wheel.armed == 0


def test_a_hundred_thousand_come_and_go_and_leave_nothing(wheel, fired):
    deadline = Deadline(fired, "it")
    references = sys.getrefcount(deadline)
    others = [Deadline(fired) for _ in range(100_000)]
    for number, other in enumerate(others):
        wheel.arm(other, (number % 2000) * TICK_S)
        wheel.arm(deadline, (number % 700) * TICK_S)
    assert wheel.armed == 100_001
    for other in others:
        wheel.disarm(other)
    wheel.disarm(deadline)
    assert wheel.armed == 0
    assert sys.getrefcount(deadline) == references
    assert advance(wheel, 5000) == 0
    other = None
    del others
    gc.collect()
    assert not [entry for entry in gc.get_objects() if isinstance(entry, Deadline) and entry is not deadline]


def test_what_is_due_together_fires_as_many_at_a_time_as_asked_and_what_was_disarmed_meanwhile_does_not(wheel, fired):
    deadlines = [Deadline(fired, number) for number in range(10)]
    for deadline in deadlines:
        wheel.arm(deadline, TICK_S)
    assert wheel.advance(START_S + 3 * TICK_S) == 10
    assert wheel.fire(4) == 4
    assert fired == [0, 1, 2, 3]
    wheel.disarm(deadlines[5])
    wheel.arm(deadlines[6], 10 * TICK_S)
    assert wheel.fire(3) == 3
    assert fired == [0, 1, 2, 3, 4, 7, 8]
    assert wheel.fire(3) == 1
    assert fired[-1] == 9
    assert wheel.armed == 1
    assert advance(wheel, 20) == 1
    assert fired[-1] == 6


def test_one_that_is_put_off_never_fires_and_leaves_the_wheel_by_itself(wheel, fired):
    deadline = Deadline(fired)
    references = sys.getrefcount(deadline)
    wheel.put_off(deadline)
    wheel.arm(deadline, 5 * TICK_S)
    for _ in range(2):
        wheel.put_off(deadline)
        assert wheel.armed == 0
    assert advance(wheel, 10) == 0
    assert sys.getrefcount(deadline) == references


@pytest.mark.parametrize("after_ticks", [1, 5, 6, 100, REVOLUTION_TICKS, REVOLUTION_TICKS + 5, 5000])
def test_one_that_is_put_off_and_armed_again_fires_when_armed_for_at_last(wheel, fired, after_ticks):
    deadline = Deadline(fired, "it")
    wheel.arm(deadline, 5 * TICK_S)
    wheel.put_off(deadline)
    wheel.arm(deadline, after_ticks * TICK_S)
    assert wheel.armed == 1
    tick = 0
    while not fired:
        tick += 1
        advance(wheel, tick)
    assert after_ticks <= tick <= after_ticks + 2
    assert advance(wheel, tick + 2 * REVOLUTION_TICKS) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arm", "put off", "disarm", "pass"]),
            st.integers(0, 3),
            st.one_of(st.integers(0, 5), st.integers(0, 1500)),
        ),
        max_size=60,
    )
)
def test_whatever_is_armed_put_off_and_disarmed_fires_once_in_its_time(steps):
    wheel = DeadlineWheel(TICK_S, START_S)
    fired: list[object] = []
    now = 0
    due: dict[object, int] = {}
    deadlines = [Deadline(fired, number) for number in range(4)]
    for step, number, ticks in steps:
        if step == "arm":
            wheel.arm(deadlines[number], ticks * TICK_S)
            due[number] = now + ticks
        elif step == "put off":
            wheel.put_off(deadlines[number])
            due.pop(number, None)
        elif step == "disarm":
            wheel.disarm(deadlines[number])
            due.pop(number, None)
        else:
            now += ticks
            advance(wheel, now)
        for name in fired:
            assert due.pop(name) <= now
        assert all(now <= when + 1 for when in due.values())
        fired.clear()
        assert wheel.armed == len(due)
    advance(wheel, now + 2000)
    assert sorted(map(str, fired)) == sorted(map(str, due))


@pytest.mark.parametrize("tick_s", [0, -1, float("nan")])
def test_a_tick_is_above_zero(tick_s):
    with pytest.raises(ValueError, match="tick_s"):
        DeadlineWheel(tick_s, 0)


class TestQuiet:
    def test_as_many_as_there_are_before_the_sweep_that_finds_something(self, wheel, fired):
        assert wheel.quiet_ticks(4) == 4
        wheel.arm(Deadline(fired), 3 * TICK_S)
        # One tick more, since the current one has partly gone by.
        assert wheel.quiet_ticks(10) == 3
        assert wheel.quiet_ticks(2) == 2
        advance(wheel, 3)
        assert wheel.quiet_ticks(10) == 0
        assert not fired
        wheel.advance(START_S + 4 * TICK_S)
        assert wheel.quiet_ticks(10) == 0
        wheel.fire(1)
        assert wheel.quiet_ticks(10) == 10

    def test_a_revolution_at_most(self, wheel, fired):
        assert wheel.quiet_ticks(10 * REVOLUTION_TICKS) == 10 * REVOLUTION_TICKS
        wheel.arm(Deadline(fired), (REVOLUTION_TICKS + 2) * TICK_S)
        assert wheel.quiet_ticks(10) == 2
