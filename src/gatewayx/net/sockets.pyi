"""Sockets and the clock for programs with connections by the thousand; the .pxd has the C-level interface."""

class Peer:
    """Whom connections are made to: an IPv4 or IPv6 address in numbers, and a port.

    sources: connections come from so many addresses of the loopback in turn; 0 lets the kernel choose. Raises
    ValueError for what is no address.
    """

    def __init__(self, host: str, port: int, sources: int = 0) -> None: ...
    @property
    def sources(self) -> int: ...

def give_memory_back() -> None:
    """Return to the machine what the C library has and nobody uses (malloc_trim(3)); takes a millisecond."""

def connected_process(descriptor: int) -> tuple[int, int] | None:
    """Which process connected to a unix socket, or listened there, and its user (unix(7)); None for no such socket."""

def clock_ns() -> int:
    """CLOCK_MONOTONIC: the same in all processes of a machine."""
