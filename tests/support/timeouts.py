"""Ends a test that hangs: it fails, and the tests after it run.

pytest-timeout raises its failure wherever the main thread is. While a test awaits something for ever, that is uvloop,
which drops the exception, and the test hangs on. So such a test is cancelled, which also tells where it waited.

A loop in compiled code lets no signal handler run; pytest's `faulthandler_timeout` then ends the process.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from types import FrameType
from typing import NamedTuple

import pytest
from pytest_timeout import is_debugging

from support.asynchronous import Test, as_made

# A test or fixture that does not end by being cancelled gets an exception, again and again in this interval.
AGAIN_S = 10.0

_task = pytest.StashKey[asyncio.Task | None]()


class Timeout(NamedTuple):
    """What pytest-timeout knows about one test; `timeout` is in seconds."""

    timeout: float
    method: str
    func_only: bool
    disable_debugger_detection: bool


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, bool | None, bool | None]:
    """Keep the task in which an asynchronous test runs, and turn its cancellation by the timeout into a failure."""
    __tracebackhide__ = True

    def ended_by_timeout(test: Test) -> Test:
        async def ending(*args, **kwargs):
            __tracebackhide__ = True
            task = pyfuncitem.stash[_task] = asyncio.current_task()
            try:
                return await test(*args, **kwargs)
            except asyncio.CancelledError as error:
                if pyfuncitem.stash[_task] is task:
                    raise
                pytest.fail(str(error))
            finally:
                pyfuncitem.stash[_task] = None

        return ending

    return (yield from as_made(pyfuncitem, ended_by_timeout))


@pytest.hookimpl
def pytest_timeout_set_timer(item: pytest.Item, settings: Timeout) -> bool:
    """Begin the time of `item`, its fixtures included. (A hook of pytest-timeout, in place of its own timers.)"""

    def expired(_signal: int, _frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if is_debugging():
            return
        message = f"no end within {settings.timeout:g} s"
        loop = asyncio._get_running_loop()
        if loop is None or asyncio.current_task(loop) is not None:
            pytest.fail(message)
        task = item.stash.get(_task, None)
        item.stash[_task] = None
        # A loop that sleeps in the kernel is woken by this alone.
        for hanging in [task] if task else asyncio.all_tasks(loop):
            loop.call_soon_threadsafe(hanging.cancel, message)
        if task is None:
            # Not a test that awaits but a fixture, or a callback that blocks the loop.
            pytest.fail(message)

    signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN_S)
    return True


@pytest.hookimpl
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """End the time of `item`."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return True
