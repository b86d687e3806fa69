"""A test that fails leaves nothing behind for which the tests after it would fail.

What it has not closed on its way out is closed: the clients' connections before its fixtures end, since a gateway waits
for them, and everything else after them, without the warning that would be an error in whatever test runs by then.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Generator, Iterator

import pytest

from support.asynchronous import Test, as_made


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, bool | None, bool | None]:
    """End the connections that an asynchronous test has open when it fails."""
    __tracebackhide__ = True
    return (yield from as_made(pyfuncitem, ends_its_connections))


def ends_its_connections(test: Test) -> Test:
    """The test, without connections once it has failed."""

    async def ending(*args, **kwargs):
        __tracebackhide__ = True
        try:
            return await test(*args, **kwargs)
        except BaseException:
            end_connections()
            raise

    return ending


def end_connections() -> None:
    """Reset whatever connection of a StreamWriter is open in the running loop."""
    loop = asyncio.get_running_loop()
    for writer in gc.get_objects():
        if issubclass(type(writer), asyncio.StreamWriter) and writer._loop is loop and not writer.is_closing():
            writer.transport.abort()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Let go of what a test that has failed, its fixtures included, has not closed."""
    failed = item.session.testsfailed
    try:
        return (yield)
    finally:
        if item.session.testsfailed > failed:
            # Each keeps the local variables of the test (sys, "last_value"); in Python 3.12 last_exc came.
            for name in ("last_type", "last_value", "last_traceback", "last_exc"):
                if hasattr(sys, name):
                    delattr(sys, name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()
