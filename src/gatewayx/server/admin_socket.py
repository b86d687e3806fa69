"""Where the admin process answers: bound by the master, so that it stays while that process is replaced."""

from __future__ import annotations

import logging
import socket

from gatewayx.address import Address
from gatewayx.errors import StartError
from gatewayx.net.names import NumericHost, resolve_at_start
from gatewayx.server.listeners import bind_socket

logger = logging.getLogger("gatewayx")

# Connections that the kernel accepts while the admin process is busy or being replaced.
BACKLOG = 128


def bind_admin(address: Address, write_timeout_s: float, *, is_default: bool) -> socket.socket | None:
    """A socket that listens, non-blocking. Raises StartError.

    is_default: nobody has set the address. If it cannot be had then, a warning says so, and None is returned.
    """

    def tell(reason: str) -> None:
        logger.warning("the admin address %s cannot be had yet: %s", address, reason)

    try:
        host = resolve_at_start(address.host, tell)[0]
        bound = bind_socket(host, address.port, write_timeout_s, shared=False)
        try:
            bound.listen(BACKLOG)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        reason = error.strerror or error
        if not is_default:
            raise StartError(f"the admin address {address} cannot be had: {reason}") from error
        logger.warning(
            "going on without an admin address, since %s cannot be had: %s; --admin chooses another one or none",
            address,
            reason,
        )
        return None
    if not _is_loopback(host):
        logger.warning("the admin address %s can be reached by other hosts, and whoever can may read it", address)
    return bound


def _is_loopback(host: NumericHost) -> bool:
    if host.family == socket.AF_INET:
        return host.host.startswith("127.")
    return host.host in ("::1", "0:0:0:0:0:0:0:1") or host.host.startswith("::ffff:127.")
