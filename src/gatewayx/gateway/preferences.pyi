"""What the headers of a request ask of the form of its answer; the .pxd has the C-level interface."""

from typing import NamedTuple

class Preferred(NamedTuple):
    """What a request prefers."""

    respond_async: bool
    # -1 without a wait.
    wait_s: float
    wants_events: bool
    # None without one, empty for one that is none of ours.
    event_id: bytes | None
    # The value of If-None-Match; None without one.
    tags: bytes | None

def preferred(headers: list[bytes], is_post: bool = True) -> Preferred:
    """What these headers, names and values in turn, prefer; is_post: of a POST."""

def tag_matches(tags: bytes, tag: bytes) -> bool:
    """Whether If-None-Match with this value names the entity tag."""
