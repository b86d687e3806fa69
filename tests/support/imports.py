"""What a program imports."""

from __future__ import annotations

import subprocess
import sys


def imported_with(*modules: str, of: tuple[str, ...]) -> list[str]:
    """The modules whose names begin with one of `of` that a Python has which has imported these."""
    program = f"import sys, {', '.join(modules)}\nprint(*(name for name in sys.modules if name.startswith({of!r})))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    return sorted(output.split())
