"""TCP ports of this machine: one that is free, and whether anybody listens on one."""

from __future__ import annotations

import errno
import random
import socket

LOOPBACK = "127.0.0.1"
# Below the ports that the kernel gives to clients (ip(7), ip_local_port_range), which any of them may have by chance.
FREE_PORTS = range(20_000, 32_000)
# Ports tried before there is none.
ATTEMPTS = 200


def free_port() -> int:
    """A port of the loopback on which nobody listens now. Raises OSError if none is found."""
    for _ in range(ATTEMPTS):
        port = random.choice(FREE_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise OSError(errno.EADDRINUSE, f"no free port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1}")


def accepts(host: str, port: int, timeout_s: float) -> bool:
    """Whether an address takes a connection within the time; it is closed at once."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True
