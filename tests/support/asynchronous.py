"""What plugins of the tests share that stand around asynchronous ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

Test = Callable[..., Coroutine[Any, Any, None]]


def as_made(pyfuncitem: pytest.Function, make: Callable[[Test], Test]) -> Generator[None, bool | None, bool | None]:
    """The body of a wrapper of pytest_pyfunc_call: run what `make` makes of the test, if that is asynchronous."""
    __tracebackhide__ = True
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return (yield)
    pyfuncitem.obj = functools.wraps(test)(make(test))
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test
