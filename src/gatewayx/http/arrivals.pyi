"""Requests of which a part is here and more must come; the .pxd has the C-level interface."""

from typing import final

@final
class Sender:
    """An IPv4 address, or an IPv6 /64, from which unfinished requests come; or all connections without an address."""

@final
class Arrival:
    """One unfinished head or body."""

@final
class Arrivals:
    """All unfinished requests of a process; as many as there are connections, at most."""

    @property
    def count(self) -> int: ...
