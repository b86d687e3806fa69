"""What a page of another origin may ask with, and may see of an answer: the lists of CORS, all of them here.

A browser asks first (a preflight) and hides what is not listed, so a method or a header that clients are to use, or a
header of an answer that they are to read, has its place here. The tables in docs/http-api.md are made from these.
"""

from __future__ import annotations

from typing import NamedTuple


class Listed(NamedTuple):
    """A header in one of the lists, and what for."""

    name: str
    meaning: str


METHODS = ("GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE")

# Each by its name: `*` would not stand for Authorization. What a page may send anyhow, such as Accept, needs no place.
REQUEST_HEADERS = (
    Listed("Authorization", "the token"),
    Listed("Content-Type", "of the workload; the gateway does not look at it"),
    Listed("X-Gearman-Unique", "the job's unique"),
    Listed("X-Gearman-Background", "whether the job is a background job"),
    Listed("X-Gearman-Priority", "the job's priority"),
    Listed("X-Gearman-Timeout", "how long to wait"),
    Listed("X-Gearman-Stream", "whether the job's data is the answer while it comes"),
    Listed("Prefer", "whether the job outlives the request"),
    Listed("Idempotency-Key", "what a request has that may be sent again"),
    Listed("Last-Event-ID", "the last event that was read"),
    Listed("If-None-Match", "what is known of a job already"),
    Listed("X-Request-Id", "the client's name for the request, for the access log"),
    Listed("traceparent", "the trace that the request is part of, for the access log"),
    Listed("tracestate", "what tracers send beside it; the gateway does not look at it"),
)

EXPOSED_HEADERS = (
    Listed("X-Gearman-Job-Handle", "the job's handle"),
    Listed("X-Gearman-Command", "how the job ended"),
    Listed("X-Gearman-Unique", "the job's unique"),
    Listed("Location", "where the job is asked for"),
    Listed("Preference-Applied", "what of Prefer was done"),
    Listed("Idempotency-Replayed", "that the answer is the one that the key had before"),
    Listed("ETag", "what If-None-Match may have next time"),
    Listed("X-Request-Id", "the request's name"),
    Listed("Retry-After", "when to come again"),
    Listed("RateLimit-Policy", "the token's rates"),
    Listed("RateLimit", "what is left of them"),
    Listed("WWW-Authenticate", "what is wrong with the token"),
    Listed("Allow", "the methods that are served"),
    Listed("Server-Timing", "how long the gateway and the job took"),
)

# Chromium keeps what a preflight said for no longer.
MAX_AGE_S = 7200

VARY = b"Vary: Origin\r\n"
PREFLIGHT_VARY = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"


def allow_origin_line(origin: bytes) -> bytes:
    """The header line that lets pages of this origin, or of any with `*`, see the answer."""
    return b"Access-Control-Allow-Origin: %b\r\n" % origin


def expose_line() -> bytes:
    """The header line that says what of an answer's head they may see."""
    return _line("Access-Control-Expose-Headers", [header.name for header in EXPOSED_HEADERS])


def allow_lines() -> bytes:
    """The header lines that say what a page may ask with."""
    return (
        _line("Access-Control-Allow-Methods", METHODS)
        + _line("Access-Control-Allow-Headers", [header.name for header in REQUEST_HEADERS])
        + _line("Access-Control-Max-Age", [str(MAX_AGE_S)])
    )


def _line(name: str, values: list[str] | tuple[str, ...]) -> bytes:
    return f"{name}: {', '.join(values)}\r\n".encode("ascii")


def markdown_tables() -> str:
    """The lists in docs/http-api.md."""
    lines = [f"Methods: {', '.join(f'`{method}`' for method in METHODS)}.", ""]
    for title, headers in (("may be sent", REQUEST_HEADERS), ("may be read", EXPOSED_HEADERS)):
        lines += [f"| header that {title} | what it is |", "|---|---|"]
        lines += [f"| `{header.name}` | {header.meaning} |" for header in headers]
        lines.append("")
    return "\n".join(lines)
