"""The sockets that listen: bound before any worker process is there, and served by those that are.

Each address has a socket for every place, of which the kernel chooses by the client's address and port (SO_REUSEPORT,
socket(7)). The master has them for its whole life, so what waits at a place outlives the worker process there: closing
the last descriptor of such a socket resets its clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gatewayx.address import Address
from gatewayx.core.counters import Counters
from gatewayx.errors import StartError
from gatewayx.net.listener import Listener
from gatewayx.net.names import NumericHost
from gatewayx.net.poller import TurnPoller
from gatewayx.server.places import STILL_S, Places, State, Watch

if TYPE_CHECKING:
    from gatewayx.http.connection import HttpServer

# The tick of a process: deadlines are swept this often, so they fire up to two of these late.
TICK_S = 0.1
# Connections that the kernel accepts while the loop is busy; it caps this at net.core.somaxconn.
BACKLOG = 4096
# Bytes of answers that the kernel takes for one client beyond what is on its way: without a bound it takes up to
# 4 MiB (net.ipv4.tcp_wmem) for each client that never reads, and the byte budget knows nothing of them.
MAX_NOTSENT_BYTES = 256 * 1024
# The kernel ends a connection whose answer lies unread in its buffers so much later than we would.
USER_TIMEOUT_GRACE_S = 1.0
# In a stop, so long each listener accepts the clients that wait there, and at most BACKLOG of them.
LAST_ACCEPTS_S = 1.0
# Errors of accept(2) for want of descriptors or memory, which may pass; how soon it is tried again.
WANT_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
WANT_RETRY_S = 0.05


class Listeners:
    """The sockets of a gateway in one of its processes.

    sockets: for each place one an address, bound. places: what the processes share. own: the place of this one.
    """

    def __init__(
        self,
        sockets: Sequence[Sequence[socket.socket]],
        poller: TurnPoller,
        http: HttpServer,
        counters: Counters,
        places: Places,
        own: int,
    ) -> None:
        self._sockets = sockets
        self._poller = poller
        self._http = http
        self._counters = counters
        self._own = own
        self._places = places
        self._watch = Watch(places, TICK_S, time.monotonic())
        # Of the places that this process serves, its own among them.
        self._served: dict[int, list[Listener]] = {}

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, with the ports that the kernel chose."""
        return [Address(*bound.getsockname()[:2]) for bound in self._sockets[self._own]]

    def listen(self) -> None:
        """Let clients in at the own place. Raises StartError."""
        for bound in self._sockets[self._own]:
            try:
                bound.listen(BACKLOG)
                self._serve(self._own, bound)
            except OSError as error:
                raise StartError(f"cannot listen on {Address(*bound.getsockname()[:2])}: {error.strerror}") from error
        self._places[self._own].listens = True
        self._places[self._own].state = State.SERVING

    def tick(self, now_s: float) -> None:
        """Accept again after a want of descriptors, and take care of places that are still."""
        if len(self._places) > 1:
            self._watch.look(now_s)
            if self._own in self._served:
                self._tend()
        for listeners in self._served.values():
            for listener in listeners:
                listener.resume()

    def stop(self) -> None:
        """Accept no more by itself; what waits is for finish()."""
        self._places[self._own].state = State.DRAINING
        for listeners in self._served.values():
            for listener in listeners:
                listener.stop()

    async def finish(self) -> None:
        """Accept the clients that wait at the places of this process, for one request each; then listen no more.

        Clients that connect meanwhile are accepted as well, for up to LAST_ACCEPTS_S and BACKLOG at each socket.
        """
        served, self._served = self._served, {}
        last = [listener for listeners in served.values() for listener in listeners]
        # What others serve they finish: the last one to close a socket resets whoever waits there.
        for number, sockets in enumerate(self._sockets):
            if number not in served:
                _close(sockets)
        ends_s = time.monotonic() + LAST_ACCEPTS_S
        await asyncio.gather(*(self._accept_waiting(listener, ends_s) for listener in last))

    def close(self) -> None:
        """Listen no more at all; the kernel resets those who wait where nobody else listens."""
        for listeners in self._served.values():
            for listener in listeners:
                listener.close()
        self._served.clear()
        close_all(self._sockets)

    def _serve(self, number: int, bound: socket.socket) -> None:
        listener = Listener(self._poller, bound, self._http.connection, self._counters)
        self._served.setdefault(number, []).append(listener)

    def _tend(self) -> None:
        for number, place in enumerate(self._places.rows):
            if number == self._own:
                continue
            if place.listens and self._is_still(number) and self._nearest(number) == self._own:
                if number not in self._served:
                    for bound in self._sockets[number]:
                        self._serve(number, bound)
            elif number in self._served:
                for listener in self._served.pop(number):
                    listener.stop()

    def _is_still(self, number: int) -> bool:
        return self._places[number].state is not State.SERVING or self._watch.still_s[number] >= STILL_S

    def _nearest(self, number: int) -> int:
        """The next place in turn that is not still, which is the own one at last."""
        count = len(self._sockets)
        following = ((number + step) % count for step in range(1, count))
        return next(place for place in following if place == self._own or not self._is_still(place))

    async def _accept_waiting(self, listener: Listener, ends_s: float) -> None:
        with contextlib.closing(listener):
            for _ in range(BACKLOG):
                try:
                    if not listener.accept_waiting(self._http.late_connection):
                        break
                    # In a turn of the loop the client's bytes are read: none that has sent a request is idle then.
                    await asyncio.sleep(0)
                except OSError as error:
                    # Any other error is that client's alone (accept(2)).
                    if error.errno in WANT_ERRORS:
                        await asyncio.sleep(WANT_RETRY_S)
                if time.monotonic() >= ends_s:
                    break


def _close(sockets: Sequence[socket.socket]) -> None:
    for bound in sockets:
        bound.close()


def close_all(sockets: Sequence[Sequence[socket.socket]]) -> None:
    """Close the sockets of every place."""
    for of_place in sockets:
        _close(of_place)


def bind(address: Address, hosts: Sequence[NumericHost], places: int, write_timeout_s: float) -> list[socket.socket]:
    """A socket for each place, bound to the first of the address's hosts and not listening yet. Raises StartError.

    An address at which anybody else listens is refused, though such sockets could share it: this is why the first one
    is bound without SO_REUSEPORT.
    """
    host = hosts[0]
    bound: list[socket.socket] = []
    try:
        bound.append(_bind(host, address.port, write_timeout_s, shared=False))
        if places > 1:
            port = bound[0].getsockname()[1]
            bound.pop().close()
            for _ in range(places):
                bound.append(_bind(host, port, write_timeout_s, shared=True))
    except OSError as error:
        _close(bound)
        raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error
    return bound


def _bind(host: NumericHost, port: int, write_timeout_s: float, *, shared: bool) -> socket.socket:
    """One socket. Raises OSError.

    What is set here the kernel sets for every connection that is accepted (tcp(7)): answers that lie in its buffers
    and are not read for write_timeout_s end the connection, even one that is closed on our side.
    """
    bound = socket.socket(host.family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_NOTSENT_BYTES)
        user_timeout_s = write_timeout_s + USER_TIMEOUT_GRACE_S
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(user_timeout_s * 1000))
        if host.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((host.host, port, 0, host.scope))
        else:
            bound.bind((host.host, port))
    except BaseException:
        bound.close()
        raise
    bound.setblocking(False)
    return bound
