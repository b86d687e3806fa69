"""How many files the processes may have open by the bounds of the settings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gatewayx.address import UnixAddress
from gatewayx.gearman.roster import MOST_SERVERS
from gatewayx.http.clients import MAX_REFUSED_CONNECTIONS
from gatewayx.net.open_files import raise_open_files
from gatewayx.net.proxied import MOST_WAITING
from gatewayx.server.entries import listens_to_proxies
from gatewayx.server.relay import MAX_IDLE_CONNECTIONS

if TYPE_CHECKING:
    from gatewayx.config.settings import Settings

logger = logging.getLogger("gatewayx")

# Descriptors beside the connections: listeners, the loop's own, logs.
OTHER_DESCRIPTORS = 64


def open_files_for(settings: Settings, processes: int) -> int:
    """How many files each of so many worker processes, and the master, may have open by these bounds."""
    # The addresses of names with each:// may fill what is left.
    servers = MOST_SERVERS if any(server.each for server in settings.server) else len(settings.server)
    return (
        settings.max_connections
        + MAX_REFUSED_CONNECTIONS
        # And to each job server one by text, and one for questions about background jobs.
        + servers * (settings.connections_per_server + 2)
        # Each process has the listeners of all, with a descriptor in reserve for those that it serves; the master has
        # two for each worker process.
        + processes * 2 * (len(settings.listen) + 1)
        # And of several worker processes each has the relay's sockets of all, and requests with others and from each of
        # them: short ones, and those that may wait for long.
        + (processes * (1 + 2 * settings.max_relayed + MAX_IDLE_CONNECTIONS) if processes > 1 else 0)
        # Connections whose PROXY header is not whole are none yet.
        + (MOST_WAITING if listens_to_proxies(settings) else 0)
        # Each unix socket has a lock.
        + sum(isinstance(address, UnixAddress) for address in settings.listen)
        + OTHER_DESCRIPTORS
    )


def make_room_for_connections(settings: Settings, processes: int) -> None:
    """Let as many files be open as the bounds of so many processes need, or say that the hard limit is in the way."""
    needed = open_files_for(settings, processes)
    possible = raise_open_files(needed)
    if possible < needed:
        logger.warning(
            "max-connections %d and workers %d need %d open files, but the hard limit is %d",
            settings.max_connections,
            processes,
            needed,
            possible,
        )
