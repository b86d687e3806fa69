"""Fixtures of the Gearman tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayx.net import names
from support.gearmand import Gearmand
from support.lookups import HangingLookups


@pytest.fixture
def function(request: pytest.FixtureRequest) -> bytes:
    """A function name of this test alone: gearmand lives longer than a test."""
    return request.node.name.encode().translate(None, b" \t")


@pytest.fixture
def tmp_gearmand(tmp_path: Path) -> Iterator[Gearmand]:
    """A gearmand of this test alone."""
    with Gearmand(tmp_path) as gearmand:
        yield gearmand


@pytest.fixture
def hanging_lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingLookups]:
    """Lookups that hang until the test lets them go on, at the latest when it ends."""
    lookups = HangingLookups()
    monkeypatch.setattr(names, "look_up", lookups.look_up)
    yield lookups
    lookups.go_on()
