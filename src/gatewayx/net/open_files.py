"""The limit of open files (getrlimit(2), RLIMIT_NOFILE): each connection needs one."""

from __future__ import annotations

import resource


def raise_open_files(needed: int) -> int:
    """Raise the soft limit to `needed`, or to the hard limit if that is lower; return which of the two it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    return possible
