"""The event log: lines on standard error, rate limited by kind, without raw bytes from the network."""

from __future__ import annotations

import logging
import sys
import time

# At most so many lines of one kind an interval; the first line after it says how many were left out.
LINES_PER_INTERVAL = 10
INTERVAL_S = 10.0
# Kinds are the program's own format strings, those about job servers times 64; more than this many there are not.
MAX_KINDS = 1024


class RateLimit(logging.Filter):
    """Lets LINES_PER_INTERVAL records of one kind pass an interval.

    A kind is a logger, a format string, and what the record is about if its `extra` names it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written; adds the count of those of its kind that were not."""
        kind = (record.name, str(record.msg), getattr(record, "about", ""))
        now_s = time.monotonic()
        began_s, count = self._kinds.get(kind, (now_s, 0))
        if now_s - began_s >= INTERVAL_S:
            if count > LINES_PER_INTERVAL:
                record.msg = f"{record.msg} ({count - LINES_PER_INTERVAL} more like this in {now_s - began_s:.0f} s)"
            began_s, count = now_s, 0
        if len(self._kinds) >= MAX_KINDS and kind not in self._kinds:
            self._kinds.clear()
        self._kinds[kind] = (began_s, count + 1)
        return count < LINES_PER_INTERVAL


class Printable(logging.Formatter):
    """Escapes whatever is not printable ASCII, so that a line cannot be forged and a terminal cannot be driven."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        """Return the line with its message escaped."""
        record.message = record.message.encode("unicode_escape").decode("ascii")
        return super().formatMessage(record)


def configure() -> None:
    """Send gatewayx's events, and what the loop reports, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("gatewayx").setLevel(logging.INFO)
