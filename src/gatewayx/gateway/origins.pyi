"""Which pages may ask, and by which names the gateway is asked for; the .pxd has the C-level interface."""

from typing import final

@final
class AllowedOrigin:
    """An origin whose pages may ask."""

@final
class Origins:
    """Which pages may ask.

    origins: theirs as browsers write them, or `*` alone; none for all but those that reach into their visitor's own
    machine. hosts: the names by which the gateway is asked for, as Hosts has them; none for any.
    """

    def __init__(self, origins: tuple[bytes, ...] = (), hosts: tuple[bytes, ...] = ()) -> None: ...
