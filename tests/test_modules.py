"""Compiled modules, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCES).with_suffix("").parts)
    for room in ("core", "net")
    for path in (SOURCES / "gatewayx" / room).glob("*.pyx")
)


@pytest.mark.parametrize(
    "module", [*MODULES, "gatewayx.http.response", "gatewayx.gearman.job", "gatewayx.gateway.routes"]
)
def test_a_module_that_is_imported_alone_ends_well(module):
    """A reference to None that it took too many would abort the process at its end."""
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
