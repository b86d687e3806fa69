"""Which pages may ask, and by which names the gateway is asked for; the .pxd has the C-level interface."""

from typing import final

@final
class Origins:
    """Which pages may ask."""
