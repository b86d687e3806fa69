"""Which path means what; the .pxd has the C-level interface."""

from typing import final

@final
class RecentFunctions:
    """The functions of paths that came lately; most paths did."""
