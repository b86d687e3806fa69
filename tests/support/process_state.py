"""What /proc tells of a process (proc(5))."""

from __future__ import annotations

from pathlib import Path


def open_descriptors(process_id: int) -> int:
    """How many files and sockets it has open."""
    return len(list(Path(f"/proc/{process_id}/fd").iterdir()))


def anonymous_bytes(process_id: int) -> int:
    """Its resident memory that no file backs.

    Which pages of files are a process's own changes with every other process that maps the same libraries.
    """
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell it")
