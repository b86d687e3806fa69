"""The sockets that listen: bound before any worker process is there, and served by those that are.

Each address has a socket for every place, of which the kernel chooses by the client's address and port (SO_REUSEPORT,
socket(7)). The master has them for its whole life, so what waits at a place outlives the worker process there: closing
the last descriptor of such a socket resets its clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gatewayx.address import Address, ListenAddress, UnixAddress
from gatewayx.core.counters import Counters
from gatewayx.errors import StartError
from gatewayx.net.listener import Listener
from gatewayx.net.names import NumericHost
from gatewayx.net.poller import TurnPoller
from gatewayx.server.entries import Entries, Entry, entry_of
from gatewayx.server.places import STILL_S, Places, State, Watch
from gatewayx.server.unix_sockets import UnixSocket, bind_unix_socket, owner_numbers

if TYPE_CHECKING:
    from gatewayx.config.settings import Settings
    from gatewayx.http.connection import HttpServer
    from gatewayx.server.relay_sockets import RelaySockets

# The tick of a process: deadlines are swept this often, so they fire up to two of these late.
TICK_S = 0.1
# Connections that the kernel accepts while the loop is busy; it caps this at net.core.somaxconn.
BACKLOG = 4096
# Bytes of answers that the kernel takes for one client beyond what is on its way: without a bound it takes up to
# 4 MiB (net.ipv4.tcp_wmem) for each client that never reads, and the byte budget knows nothing of them.
MAX_NOTSENT_BYTES = 256 * 1024
# The kernel ends a connection whose answer lies unread in its buffers so much later than we would.
USER_TIMEOUT_GRACE_S = 1.0
# A worker process that has not looked for so long was paused itself.
PATIENCE_S = 1.5
# The loop's timers are a millisecond coarse: this one is not early.
TIMER_SLACK_S = 0.002
# A worker process that listens has told so by then, if it does not stand still; how soon it is asked again.
TELLING_S = 1.0
TELLING_RETRY_S = 0.02
# In a stop, so long each listener accepts the clients that wait there, and at most BACKLOG of them.
LAST_ACCEPTS_S = 1.0
# Errors of accept(2) for want of descriptors or memory, which may pass; how soon it is tried again.
WANT_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
WANT_RETRY_S = 0.05


class BoundSockets:
    """Every socket of a gateway on which it listens or will, in each of its processes.

    places: how many there are. An address has a socket for each; a unix socket is one for all of them, and so is an
    inherited one.
    """

    def __init__(self, places: int) -> None:
        # Where they are bound, with the ports that the kernel chose.
        self.addresses: list[Address | ListenAddress | UnixAddress] = []
        self.by_place: list[list[socket.socket]] = [[] for _ in range(places)]
        self.shared: list[socket.socket] = []
        # How clients come in at those where that is not plainly.
        self._entries: dict[socket.socket, Entry] = {}
        self._files: list[UnixSocket] = []
        # Where the sockets listen that somebody else has bound, who may keep them: they are only closed here, and their
        # files are the other's to remove.
        self._inherited: list[Address | UnixAddress] = []

    def inherit(self, sockets: Sequence[socket.socket], settings: Settings) -> None:
        """Take sockets that listen already. Raises StartError."""
        self.shared += sockets
        for inherited in sockets:
            address = _address_of(inherited)
            self._entries[inherited] = entry_of(address)
            self.addresses.append(address)
            self._inherited.append(address)
            if inherited.family != socket.AF_UNIX:
                try:
                    _set_options(inherited, settings.write_timeout_s)
                except OSError as error:
                    raise StartError(f"cannot listen on {address}: {error.strerror}") from error

    def entry(self, bound: socket.socket) -> Entry:
        """How clients come in at this one."""
        return self._entries.get(bound, Entry())

    def bind(self, address: Address | ListenAddress, host: NumericHost, settings: Settings) -> None:
        """Bind a socket for each place to the address of this host. Raises StartError.

        An address at which anybody else listens is refused, though such sockets could share it: this is why the first
        one is bound without SO_REUSEPORT. Nothing happens if it was inherited.
        """
        entry = entry_of(address)
        if self._is_inherited(Address(host.host, address.port), entry):
            return
        try:
            bound = bind_socket(host, address.port, settings.write_timeout_s, shared=False)
            self.addresses.append(_with_entry(_address_of(bound), entry))
            self._entries[bound] = entry
            if len(self.by_place) == 1:
                self.by_place[0].append(bound)
                return
            port = bound.getsockname()[1]
            bound.close()
            for sockets in self.by_place:
                sockets.append(bind_socket(host, port, settings.write_timeout_s, shared=True))
                self._entries[sockets[-1]] = entry
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error

    def bind_file(self, address: UnixAddress, settings: Settings) -> None:
        """Bind a unix socket. Raises StartError. Nothing happens if it was inherited."""
        if self._is_inherited(address, entry_of(address)):
            return
        self._files.append(bind_unix_socket(address, settings.socket_mode, owner_numbers(settings.socket_owner)))
        self.shared.append(self._files[-1].socket)
        self._entries[self._files[-1].socket] = entry_of(address)
        self.addresses.append(address)

    def _is_inherited(self, address: Address | UnixAddress, entry: Entry) -> bool:
        """Whether it was inherited; then clients come in there as the settings say."""
        found = False
        for place, inherited in enumerate(self._inherited):
            if inherited == address:
                self.addresses[place] = _with_entry(inherited, entry)
                self._entries[self.shared[place]] = entry
                found = True
        return found

    def set_write_timeout(self, write_timeout_s: float) -> None:
        """Have the kernel wait so long for clients that are accepted from now on, in every process."""
        for sockets in self.by_place:
            for bound in sockets:
                # One that this process has closed is another's.
                if bound.fileno() >= 0:
                    _set_write_timeout(bound, write_timeout_s)

    def leave_files(self) -> None:
        """In a process that was forked: the files of the unix sockets are the master's to remove."""
        for file in self._files:
            file.leave()
        self._files.clear()

    def remove_files(self) -> None:
        """Remove the files of the unix sockets, so that nobody connects any more who would be reset."""
        for file in self._files:
            file.remove()
        self._files.clear()

    def close(self) -> None:
        """Close all of them in this process."""
        self.remove_files()
        for sockets in (*self.by_place, self.shared):
            _close(sockets)


class Listeners:
    """What one process does with the sockets.

    places: what the processes share. own: the place of this one. entries: how clients come in. relay_sockets: of all
    places, if there are several.
    """

    def __init__(
        self,
        sockets: BoundSockets,
        poller: TurnPoller,
        http: HttpServer,
        counters: Counters,
        places: Places,
        own: int,
        entries: Entries,
        relay_sockets: RelaySockets | None = None,
    ) -> None:
        self._sockets = sockets
        self._poller = poller
        self._http = http
        self._counters = counters
        self._own = own
        self._places = places
        self._watch = Watch(places, PATIENCE_S, time.monotonic())
        # Of the places that this process serves, its own among them, which has the shared ones as well.
        self._served: dict[int, list[Listener]] = {}
        self._entries = entries
        # By listener: how clients come in there.
        self._entry_of: dict[Listener, Entry] = {}
        self._relay_sockets = relay_sockets
        # Where other processes connect, to the end of this one.
        self._relay: Listener | None = None

    @property
    def addresses(self) -> list[Address | ListenAddress | UnixAddress]:
        """Where it listens, with the ports that the kernel chose."""
        return self._sockets.addresses

    def listen(self) -> None:
        """Let clients in at the own place, and the other processes. Raises StartError."""
        if self._relay_sockets is not None:
            bound = self._relay_sockets.listening(self._own)
            self._relay = Listener(self._poller, bound, self._http.relay_connection, self._counters)
        for bound in (*self._sockets.by_place[self._own], *self._sockets.shared):
            try:
                # The queue of a socket that was inherited is as long as its owner wants it.
                if not bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    if bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
                        self._check_is_alone(bound)
                    bound.listen(BACKLOG)
                self._serve(self._own, bound)
            except OSError as error:
                raise StartError(f"cannot listen on {_address_of(bound)}: {error.strerror}") from error
        self._places[self._own].listens = True
        self._places[self._own].state = State.SERVING

    def _check_is_alone(self, bound: socket.socket) -> None:
        """Raise OSError if somebody else listens here by now, such as a gateway that was started at the same time.

        A socket that could share its address with one that only is bound cannot with one that listens.
        """
        ends_s = time.monotonic() + TELLING_S
        is_last = False
        while not any(place.listens for place in self._places.rows):
            try:
                with socket.socket(bound.family, socket.SOCK_STREAM) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if bound.family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind(bound.getsockname())
            except OSError:
                if is_last:
                    raise
                # A neighbour may be between its listen() and telling so. Its row is looked at once more in the end.
                is_last = time.monotonic() >= ends_s
                time.sleep(TELLING_RETRY_S)
            else:
                return

    def tick(self, now_s: float) -> None:
        """Accept again after a want of descriptors, and take care of places that are still.

        now_s: by time.monotonic().
        """
        if len(self._places) > 1:
            self._watch.look(now_s)
            if self._own in self._served:
                self._tend()
        for listeners in self._served.values():
            for listener in listeners:
                listener.resume()
        if self._relay is not None:
            self._relay.resume()

    def rest_s(self, most_s: float) -> float:
        """How soon the next tick is to be if nothing happens, at most `most_s`: in time for whoever is still then."""
        if len(self._served) > 1 or any(listener.waits for listener in self._served.get(self._own, ())):
            return TICK_S
        if len(self._places) == 1:
            return most_s
        # Whoever is further back is this one's to serve only once this neighbour is still.
        still_s = self._watch.still_s((self._own - 1) % len(self._places))
        return max(TICK_S, min(most_s, STILL_S - still_s + TIMER_SLACK_S))

    def stop(self) -> None:
        """Accept no more by itself; what waits is for finish()."""
        self._sockets.remove_files()
        self._places[self._own].state = State.DRAINING
        for listeners in self._served.values():
            for listener in listeners:
                listener.stop()

    async def finish(self) -> None:
        """Accept the clients that wait at the places of this process, for one request each; then listen no more.

        Clients that connect meanwhile are accepted as well, for up to LAST_ACCEPTS_S and BACKLOG at each socket. Time
        in which this process stands still does not count: nobody who waits is accepted in it.
        """
        served, self._served = self._served, {}
        last = [listener for listeners in served.values() for listener in listeners]
        # What others serve they finish: the last one to close a socket resets whoever waits there.
        for number, sockets in enumerate(self._sockets.by_place):
            if number not in served:
                _close(sockets)
        await asyncio.gather(*(self._accept_waiting(listener) for listener in last))

    def others_done(self) -> bool:
        """Whether no other process has clients, or turns its loop."""
        return all(
            place.state in (State.DONE, State.EMPTY) or self._watch.still_s(number) >= STILL_S
            for number, place in enumerate(self._places.rows)
        )

    def close(self) -> None:
        """Listen no more at all; the kernel resets those who wait where nobody else listens."""
        for listeners in self._served.values():
            for listener in listeners:
                listener.close()
        self._served.clear()
        if self._relay is not None:
            self._relay.close()
        self._sockets.close()

    def _serve(self, number: int, bound: socket.socket) -> None:
        entry = self._sockets.entry(bound)
        factory = self._entries.factory(entry, self._http.connection)
        listener = Listener(self._poller, bound, factory, self._counters, self._entries.line(entry))
        self._entry_of[listener] = entry
        self._served.setdefault(number, []).append(listener)

    def _tend(self) -> None:
        """Serve the places before the own one that are still, back to the first that is not, and no others."""
        count = len(self._places)
        before = ((self._own - step) % count for step in range(1, count))
        still = set(itertools.takewhile(self._is_still, before))
        for number in still - self._served.keys():
            if self._places[number].listens:
                for bound in self._sockets.by_place[number]:
                    self._serve(number, bound)
        for number in self._served.keys() - still - {self._own}:
            for listener in self._served.pop(number):
                self._entry_of.pop(listener)
                listener.stop()

    def _is_still(self, number: int) -> bool:
        return self._places[number].state is not State.SERVING or self._watch.still_s(number) >= STILL_S

    async def _accept_waiting(self, listener: Listener) -> None:
        left_s = LAST_ACCEPTS_S
        looked_s = time.monotonic()
        late = self._entries.factory(self._entry_of.pop(listener), self._http.late_connection)
        with contextlib.closing(listener):
            for _ in range(BACKLOG):
                try:
                    if not listener.accept_waiting(late):
                        break
                    # In a turn of the loop the client's bytes are read: none that has sent a request is idle then.
                    await asyncio.sleep(0)
                except OSError as error:
                    # Any other error is that client's alone (accept(2)).
                    if error.errno in WANT_ERRORS:
                        await asyncio.sleep(WANT_RETRY_S)
                now_s = time.monotonic()
                left_s -= min(now_s - looked_s, TICK_S)
                looked_s = now_s
                if left_s <= 0:
                    break


def _close(sockets: Sequence[socket.socket]) -> None:
    for bound in sockets:
        bound.close()


def _address_of(bound: socket.socket) -> Address | UnixAddress:
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        # An abstract name, which only a socket can have that was inherited, comes as bytes, with a NUL before it.
        return UnixAddress(name if isinstance(name, str) else f"@{os.fsdecode(name[1:])}")
    return Address(*name[:2])


def _with_entry(address: Address | UnixAddress, entry: Entry) -> Address | ListenAddress | UnixAddress:
    """The address as a setting would have it by which clients come in so."""
    if isinstance(address, UnixAddress) or not (entry.proxy or entry.tls):
        return address
    return ListenAddress(*address, tls=entry.tls, proxy=entry.proxy)


def _set_write_timeout(bound: socket.socket, write_timeout_s: float) -> None:
    user_timeout_s = write_timeout_s + USER_TIMEOUT_GRACE_S
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(user_timeout_s * 1000))


def bind_socket(host: NumericHost, port: int, write_timeout_s: float, *, shared: bool) -> socket.socket:
    """A socket that is bound to this port of the host, non-blocking. Raises OSError."""
    bound = socket.socket(host.family, socket.SOCK_STREAM)
    try:
        _set_options(bound, write_timeout_s)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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


def _set_options(bound: socket.socket, write_timeout_s: float) -> None:
    """Set what the kernel then sets for every connection that is accepted (tcp(7)). Raises OSError.

    Answers that lie in its buffers and are not read for write_timeout_s end the connection, even one that is closed on
    our side.
    """
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_NOTSENT_BYTES)
    _set_write_timeout(bound, write_timeout_s)
