"""The demo as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running_demo(listen: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the demo; gives the process and the lines it printed up to the one that says how to stop it."""
    command = [sys.executable, "-m", "gatewayx", "demo", "--listen", listen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Ctrl-C" in line:
                    break
            yield process, lines
        finally:
            process.kill()
