"""The event log: lines on standard error, of text or JSON, rate limited by kind, without raw bytes from the network."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from types import TracebackType

from gatewayx.server.standard_error import RecordStream, RecordWriter

# At most so many lines of one kind an interval; at its end the log tells how many were left out.
LINES_PER_INTERVAL = 10
INTERVAL_S = 10.0
# Kinds that are told apart at once: the program's format strings, those about job servers times 64. Further kinds count
# as one.
MAX_KINDS = 1024
OTHER_KINDS = ("gatewayx", "a line of any other kind", "")
# Stands before each line of a traceback, so that no part of an exception's message begins a line.
TRACEBACK_INDENT = "    "
LONGEST_KIND = 200
# A line of JSON, with its line end: PIPE_BUF, so that lines of several processes never mix in a pipe (pipe(7)). In one
# that would be longer the end of the message is cut, to so much, and the beginning of the traceback, to the rest.
MAX_JSON_BYTES = 4096
MAX_MESSAGE_BYTES = 2048
# Who speaks, in a line of JSON, if it is no worker process.
MASTER = "master"
# The logger of what is written to standard error past all loggers.
STANDARD_ERROR = "stderr"

logger = logging.getLogger("gatewayx")


class RateLimit(logging.Filter):
    """Lets LINES_PER_INTERVAL records of one kind pass an interval.

    A kind is a logger, a format string, and what the record is about if its `extra` names it.
    """

    def __init__(self) -> None:
        super().__init__()
        # When the interval began, and how many lines it had, those left out included.
        self._kinds: dict[tuple[str, str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written; adds the count of those of its kind that were not."""
        kind = (record.name, str(record.msg), str(getattr(record, "about", "")))
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            kind = OTHER_KINDS
        now_s = time.monotonic()
        began_s, count = self._kinds.get(kind, (now_s, 0))
        if now_s - began_s >= INTERVAL_S:
            if count > LINES_PER_INTERVAL:
                record.msg = f"{record.msg} ({count - LINES_PER_INTERVAL} more like this in {now_s - began_s:.0f} s)"
            began_s, count = now_s, 0
        self._kinds[kind] = (began_s, count + 1)
        return count < LINES_PER_INTERVAL

    def take_left_out(self, *, ended: bool = True) -> list[str]:
        """Return what to say of the kinds whose interval has ended, or of all, and forget these kinds."""
        now_s = time.monotonic()
        told = []
        for kind, (began_s, count) in list(self._kinds.items()):
            if ended and now_s - began_s < INTERVAL_S:
                continue
            del self._kinds[kind]
            if count > LINES_PER_INTERVAL:
                shown = " ".join(part for part in kind[1:] if part)[:LONGEST_KIND]
                told.append(f"{count - LINES_PER_INTERVAL} more lines in {now_s - began_s:.0f} s like: {shown}")
        return told


def escaped(text: str) -> str:
    """Return the text as printable ASCII, so that a line cannot be forged and a terminal cannot be driven."""
    return text.encode("unicode_escape").decode("ascii")


class Printable(logging.Formatter):
    """Escapes whatever is not printable ASCII; a traceback keeps its lines, each of them indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole record; a traceback that another handler has left in it as text is not used."""
        record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        """Return the line with its message escaped."""
        record.message = escaped(record.message)
        return super().formatMessage(record)

    def formatException(  # noqa: N802
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """Return the traceback, escaped and indented."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Return the stack, escaped and indented."""
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"{TRACEBACK_INDENT}{escaped(line)}" for line in text.split("\n"))


class JsonLines(logging.Formatter):
    """Each record as one line: an object of JSON, in ASCII.

    place: of the worker process, or who else speaks.
    """

    def __init__(self, place: int | str = MASTER) -> None:
        super().__init__()
        self._place = place

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of the record, without a line end, of less than MAX_JSON_BYTES."""
        time_s, milliseconds = divmod(int(record.created * 1000), 1000)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_s))
        fields: dict[str, object] = {
            "time": f"{moment}.{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "place": self._place,
            "logger": record.name,
        }
        # As `exc_text` another handler may have left it escaped.
        parts = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        parts += [self.formatStack(record.stack_info)] if record.stack_info else []
        if parts:
            fields["traceback"] = "\n".join(parts)
        return _json(fields)


def _json(fields: dict[str, object]) -> str:
    """The fields as JSON, cut to MAX_JSON_BYTES with a line end: then `cut` says so."""
    # Half a surrogate pair, as in a path that is no UTF-8, is not JSON for all readers.
    fields = {name: _without_surrogates(value) if isinstance(value, str) else value for name, value in fields.items()}
    line = json.dumps(fields, separators=(",", ":"))
    if len(line) < MAX_JSON_BYTES:
        return line
    fields |= {"cut": True, "logger": str(fields["logger"])[:LONGEST_KIND]}
    traceback = str(fields.pop("traceback", ""))
    fields["message"] = _beginning(str(fields["message"]), MAX_MESSAGE_BYTES)
    if traceback:
        fields["traceback"] = ""
        left_bytes = MAX_JSON_BYTES - 1 - len(json.dumps(fields, separators=(",", ":")))
        fields["traceback"] = _beginning(traceback[::-1], left_bytes)[::-1]
    return json.dumps(fields, separators=(",", ":"))


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _beginning(text: str, most_bytes: int) -> str:
    """The beginning of the text that takes at most so many bytes in JSON."""
    text = text[:most_bytes]
    while (text_bytes := len(json.dumps(text)) - 2) > most_bytes:
        text = text[: min(len(text) - 1, len(text) * most_bytes // text_bytes)]
    return text


def _formatter(log_format: str, teller: str, place: int | str) -> logging.Formatter:
    return JsonLines(place) if log_format == "json" else Printable(f"%(asctime)s %(levelname)s {teller}%(message)s")


class EventLog(logging.Handler):
    """The handler of a process that serves: escapes, limits, and writes to `descriptor` without waiting.

    log_format: "text" or "json".
    """

    def __init__(self, descriptor: int, log_format: str = "text") -> None:
        super().__init__()
        self._format = log_format
        self._teller = ""
        self._place: int | str = MASTER
        # Lines that were dropped up to the last take_dropped().
        self._taken_dropped = 0
        self.change(log_format)
        self.limit = RateLimit()
        self.addFilter(self.limit)
        self.writer = RecordWriter(descriptor, self._lost)

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            self.writer.write(self._line(record))
        except Exception:
            self.handleError(record)

    def tick(self) -> None:
        """Tell what is to be told later: what its reader had no room for, and what was left out."""
        self.writer.catch_up()
        self._tell_left_out()

    def change(self, log_format: str) -> None:
        """Go on in this format."""
        self._format = log_format
        self.setFormatter(_formatter(log_format, self._teller, self._place))

    def take_dropped(self) -> int:
        """How many lines were dropped since it was asked last."""
        dropped = self.writer.dropped - self._taken_dropped
        self._taken_dropped = self.writer.dropped
        return dropped

    def begin_anew(self, teller: str, place: int | str) -> None:
        """In a process that was forked: what was left out or not written before is the other's to tell.

        teller: stands before each message of text. place: stands in each line of JSON.
        """
        self._teller = teller
        self._place = place
        self.change(self._format)
        self.limit.take_left_out(ended=False)
        self.writer.begin_anew()
        self._taken_dropped = self.writer.dropped

    def shown(self, line: str) -> str:
        """What stands in the log for a line that was written to standard error past all loggers."""
        return escaped(line) if self._format == "text" else self.format(_record(line, STANDARD_ERROR))

    def finish(self) -> None:
        """Tell what was left out so far, as the last thing."""
        self._tell_left_out(ended=False)
        self.writer.catch_up()

    def _tell_left_out(self, *, ended: bool = True) -> None:
        for told in self.limit.take_left_out(ended=ended):
            self.writer.write(self._line(_record(told)))

    def _lost(self, count: int, why: str) -> bytes:
        return self._line(_record(f"{count} log lines were lost, since {why}"))

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("ascii", "backslashreplace")


def _record(message: str, name: str = "gatewayx") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 0, message, None, None)


def configure(descriptor: int = 2, log_format: str = "text") -> EventLog:
    """Send gatewayx's events, what the loop reports, and whatever else goes to standard error through one handler."""
    log = EventLog(descriptor, log_format)
    root = logging.getLogger()
    root.addHandler(log)
    root.setLevel(logging.WARNING)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.stderr = RecordStream(log.writer, log.shown)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _uncaught_in_thread
    return log


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logger.critical("the gateway failed", exc_info=(kind, error, traceback))


def _unraisable(failure: sys.UnraisableHookArgs) -> None:
    error = failure.exc_value or failure.exc_type()
    if isinstance(error, UnicodeDecodeError) and isinstance(failure.object, bytes):
        # A client has asked for a name by TLS that is no ASCII, which Python's ssl cannot hand to sni_callback. The
        # handshake fails and is counted: strangers fill no log with tracebacks.
        return
    logger.error(
        "%s: %r",
        failure.err_msg or "an exception was ignored in",
        failure.object,
        exc_info=(type(error), error, failure.exc_traceback),
    )


def _uncaught_in_thread(failure: threading.ExceptHookArgs) -> None:
    error = failure.exc_value or failure.exc_type()
    logger.error("a thread failed", exc_info=(type(error), error, failure.exc_traceback))
