"""What systemd and the master tell each other: readiness, reloads, the watchdog, and sockets that are there already.

The protocols are sd_notify(3) and sd_listen_fds(3): variables of the environment, datagrams, inherited descriptors.
Other managers speak them too, so nothing here asks whether systemd is there.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Mapping, MutableMapping

from gatewayx.errors import StartError
from gatewayx.server.logs import escaped

logger = logging.getLogger("gatewayx")

# sd_listen_fds(3): the first of the inherited descriptors.
FIRST_DESCRIPTOR = 3
LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")
FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)

# Longer numbers are none of these variables'.
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_MICROSECONDS = 1_000_000


class Manager:
    """The service manager, as the process sees it that the manager has started: the master.

    What its full queue does not take is sent again at the next tick, but for signs of life. One that cannot be reached
    is told of once in the log, and nothing else depends on it.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._told_failure = False
        self._unsent: list[str] = []
        self._interval_s = watchdog_interval_s(environ)
        self._due_s = 0.0
        # Before the first READY=1 there is no reload, and after STOPPING=1, which is final, neither of them.
        self._ready = False
        self._stopping = False

    def ready(self, status: str) -> None:
        """It serves; `systemctl status` shows the status."""
        if not self._stopping:
            self._ready = True
            # For managers that have started a shell or the like, of which this process is a child.
            self.notify("READY=1", f"MAINPID={os.getpid()}", f"STATUS={escaped(status)}")

    def reloading(self) -> None:
        """A reload begins; `reloaded` must follow, however it ends. Before `ready` neither tells anything."""
        if self._ready and not self._stopping:
            # By the time the manager knows that this is the reload that it has asked for (Type=notify-reload).
            self.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """The reload is over: the settings are others, or as before if they could not be taken."""
        if self._ready and not self._stopping:
            self.notify("READY=1")

    def stopping(self, status: str, within_s: float) -> None:
        """The stop begins, which takes up to so long: TimeoutStopSec is extended to that where it is shorter."""
        if not self._stopping:
            self._stopping = True
            self.notify(
                "STOPPING=1", f"STATUS={escaped(status)}", f"EXTEND_TIMEOUT_USEC={round(within_s * _MICROSECONDS)}"
            )

    def tick(self, now_s: float, *, alive: bool) -> None:
        """Send what was not taken before, and a sign of life if one is due and the gateway is alive."""
        while self._unsent and self._sent(self._unsent[0]):
            del self._unsent[0]
        if self._interval_s and alive and now_s >= self._due_s:
            self._due_s = now_s + self._interval_s
            self.notify("WATCHDOG=1", again=False)

    def pause_s(self, now_s: float) -> float:
        """How long it is until the next sign of life is due; infinity without a watchdog."""
        return max(0.0, self._due_s - now_s) if self._interval_s else float("inf")

    def notify(self, *assignments: str, again: bool = True) -> None:
        """Send one datagram, without waiting. again: at the next tick, if the manager's queue is full.

        Never raises: a gateway serves, whoever hears of it.
        """
        if not self._address:
            return
        message = "\n".join(assignments)
        if not again:
            self._sent(message)
        # What waits goes first: a reload of whose begin the manager hears after its end would never end.
        elif self._unsent or not self._sent(message):
            self._unsent.append(message)

    def _sent(self, message: str) -> bool:
        """Whether there is no more to do for it: it was sent, or cannot be."""
        try:
            _send(self._address, message)
        except BlockingIOError:
            return False
        except (OSError, ValueError) as error:
            if not self._told_failure:
                self._told_failure = True
                reason = getattr(error, "strerror", None) or str(error)
                logger.warning("NOTIFY_SOCKET = %s cannot be used: %s", self._address, reason)
        return True


def _send(address: str, message: str) -> None:
    """Raises BlockingIOError if the queue is full, OSError, and ValueError for what is no unix socket's address."""
    if not address.startswith(("/", "@")):
        raise ValueError("it is neither a path nor an abstract socket")
    name = os.fsencode(address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(message.encode("utf-8", "replace"), b"\0" + name[1:] if name.startswith(b"@") else name)


def watchdog_interval_s(environ: Mapping[str, str]) -> float:
    """How often a sign of life is to be given: twice in the time that the manager waits for one; 0 for never."""
    wait_us = _number(environ.get("WATCHDOG_USEC", ""))
    # sd_watchdog_enabled(3): without WATCHDOG_PID it is meant for any process.
    if not wait_us or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return wait_us / _MICROSECONDS / 2


def listen_sockets(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets that this process was given, which listen already; none if they were meant for another process.

    They are non-blocking and no program inherits them. The variables are removed, so that no child takes them for its
    own. Raises StartError.
    """
    process_id, _, count, names = [environ.pop(variable, "") for variable in LISTEN_VARIABLES]
    if _number(process_id) != os.getpid():
        return []
    number = _number(count)
    if number is None:
        raise StartError(f"LISTEN_FDS = {count!a} is no number of descriptors")
    name_of = dict(enumerate(names.split(":"), FIRST_DESCRIPTOR)) if names else {}
    sockets: list[socket.socket] = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + number):
        name = name_of.get(descriptor, "")
        try:
            sockets.append(_inherited(descriptor))
        except (OSError, ValueError) as error:
            for found in sockets:
                found.close()
            shown = f"{descriptor} ({name!a})" if name else str(descriptor)
            reason = getattr(error, "strerror", None) or str(error)
            raise StartError(f"cannot listen on descriptor {shown} of LISTEN_FDS: {reason}") from error
    return sockets


def _inherited(descriptor: int) -> socket.socket:
    """Raises OSError if there is no socket, ValueError if it cannot be served."""
    found = socket.socket(fileno=descriptor)
    fault = _fault(found)
    if fault:
        found.close()
        raise ValueError(fault)
    found.set_inheritable(False)
    found.setblocking(False)
    return found


def _fault(found: socket.socket) -> str:
    """Why a socket cannot be served; empty if it can."""
    if found.family not in FAMILIES or found.type != socket.SOCK_STREAM:
        return "it is no stream socket of IPv4, IPv6 or unix"
    if found.family != socket.AF_UNIX and found.proto != socket.IPPROTO_TCP:
        return "it does not speak TCP"
    if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "it does not listen (a .socket unit needs ListenStream= and Accept=no)"
    return ""


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None
