"""Ids of jobs that outlive their request; the .pxd has the C-level interface."""

from typing import final

@final
class BackgroundId:
    """What the id of a background job tells."""

    created_s: int
    life: int
    unique: bytes
    handle: bytes
    function: bytes

@final
class JobIds:
    """Makes and reads ids.

    keys: by the first of which ids are signed, and by any of which they are read; one or two of KEY_BYTES bytes, else
    ValueError.
    """

    def __init__(self, keys: tuple[bytes, ...]) -> None: ...
    def change(self, keys: tuple[bytes, ...]) -> None:
        """Be as if it had been made with these keys."""

    def make_kept(self, place: int, mark: int, token_mark: bytes | None = None) -> bytes:
        """A new id for a job that this process keeps."""

    def kept_place(self, text: bytes, token_mark: bytes | None = None) -> tuple[int, int] | None:
        """The place and the mark that such an id tells; None if it is none for this token."""

    def background(self, text: bytes, token_mark: bytes | None = None) -> BackgroundId | None:
        """What an id of a background job tells; None if it is none for this token."""

    def tells_of(self, found: BackgroundId, name: str) -> bool:
        """Whether the job is at the job server of this name."""
