"""Ports of this machine for tests: none is given twice, and none to tests that run in another process."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import socket

from gatewayx.net import ports

# What pytest-xdist calls its processes, of which as many have ports of their own (Makefile, TEST_PROCESSES).
PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PROCESSES = 8
_own = ports.FREE_PORTS[PROCESS % PROCESSES :: PROCESSES]
# Whoever runs tests beside these shall not try the same ones at the same time.
_next = itertools.islice(itertools.cycle(_own), random.randrange(len(_own)), None)


def free_port() -> int:
    """A port of the loopback on which nobody listens now. Raises OSError if none is found."""
    for port in itertools.islice(_next, len(_own)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((ports.LOOPBACK, port))
            return port
    raise OSError(errno.EADDRINUSE, "no port is free")
