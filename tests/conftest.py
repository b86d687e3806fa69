"""Fixtures of every test."""

import pytest


@pytest.fixture
def anyio_backend():
    """Asynchronous tests run on uvloop, as the program does."""
    return ("asyncio", {"use_uvloop": True})
