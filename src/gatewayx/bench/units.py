"""Numbers as people read them, with their units: in reports, comparisons and on the terminal alike."""

from __future__ import annotations


def number_text(value: float) -> str:
    """A number with at least three digits that count, and commas."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def time_text(seconds: float | None) -> str:
    """A time in the unit it is read in: µs, ms or s; "-" for None."""
    if seconds is None:
        return "-"
    size = abs(seconds)
    if size == 0:
        return "0 s"
    if size < 0.001:
        return f"{number_text(seconds * 1e6)} µs"
    return f"{number_text(seconds * 1e3)} ms" if size < 1 else f"{number_text(seconds)} s"


def bytes_text(size: float, *, signed: bool = False) -> str:
    """A size in B, KiB, MiB or GiB; `signed` shows the sign of a growth, too."""
    sign = "+" if signed and size >= 0 else ""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if abs(size) >= factor:
            return f"{sign}{size / factor:,.1f} {unit}"
    return f"{sign}{size:.0f} B"


def share_text(share: float) -> str:
    """A share of 1 in percent."""
    return f"{number_text(share * 100)}%"
