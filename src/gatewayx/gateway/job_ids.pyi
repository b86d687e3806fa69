"""Ids of jobs that outlive their request; the .pxd has the C-level interface."""

from typing import final

class BackgroundId:
    """What the id of a background job tells."""

@final
class JobIds:
    """Makes and reads ids. keys: by the first of which ids are signed, and by any of which they are read."""

    def __init__(self, keys: tuple[bytes, ...]) -> None: ...
    def change(self, keys: tuple[bytes, ...]) -> None:
        """Be as if it had been made with these keys."""
