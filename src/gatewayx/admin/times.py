"""Times as the admin address shows them: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

import time


def rfc3339(epoch_s: float) -> str:
    """A time, in seconds since the epoch."""
    milliseconds = int(epoch_s * 1000)
    whole_s, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole_s))}.{rest:03}Z"


def rfc3339_or_none(epoch_s: float) -> str | None:
    """The same; None for 0, which is never."""
    return rfc3339(epoch_s) if epoch_s else None
