"""Names of hosts, looked up without the loop's own threads.

getaddrinfo(3) blocks for as long as name servers are silent. A loop runs it in a few threads that all names share and
that the process joins at its exit (of libuv's four at most two), so names that hang there lock out the others, and the
exit. Here each name has a daemon thread of its own, which is never joined.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

# A caller that waits for a lookup is told this often that it is under way.
SLOW_S = 5.0


class NumericHost(NamedTuple):
    """An address of a host, as connect(2) takes it.

    family: AF_INET or AF_INET6. host: the address in text, without a zone. scope: the number of the interface that an
    IPv6 address is valid on (RFC 4007), 0 for none.
    """

    family: int
    host: str
    scope: int = 0

    @classmethod
    def parse(cls, text: str) -> NumericHost | None:
        """Read an IPv4 address or an IPv6 one with or without a zone; None for a name. Raises OSError.

        The error is a zone that is no interface of this machine.
        """
        number, percent, zone = text.partition("%")
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                packed = socket.inet_pton(family, number)
            except (OSError, ValueError):
                continue
            if percent and family == socket.AF_INET:
                return None
            return cls(family, socket.inet_ntop(family, packed), _interface_number(zone) if percent else 0)
        return None

    def __str__(self) -> str:
        """The address with its zone, as `parse` reads it."""
        if not self.scope:
            return self.host
        try:
            return f"{self.host}%{socket.if_indextoname(self.scope)}"
        except OSError:
            return f"{self.host}%{self.scope}"


class _Answer(NamedTuple):
    """What a lookup has led to: addresses, or why there are none, as far as is known."""

    hosts: list[NumericHost]
    error: str | None = None


class Resolver:
    """Looks names up for the loop; at most one lookup a name is under way, which all who ask for it share."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Bounded by the names in the settings.
        self._under_way: dict[str, asyncio.Future[_Answer]] = {}

    async def resolve(self, host: str, tell: Callable[[str], None] = lambda reason: None) -> list[NumericHost]:
        """The addresses of a host, one at least, in the system's order (RFC 6724); a number is its own only address.

        It waits for as long as the lookup takes and calls `tell` with a reason every SLOW_S. Raises OSError.
        """
        numeric = NumericHost.parse(host)
        if numeric is not None:
            return [numeric]
        lookup = self._lookup(host)
        while not lookup.done():
            # Unlike wait_for(), wait() cancels nothing: others may wait for the same lookup.
            await asyncio.wait((lookup,), timeout=SLOW_S)
            if not lookup.done():
                tell(f"its name is not resolved within {SLOW_S:g} s")
        return _hosts_of(lookup.result())

    def _lookup(self, host: str) -> asyncio.Future[_Answer]:
        key = host.lower()
        lookup = self._under_way.get(key)
        if lookup is None:
            lookup = self._under_way[key] = self._loop.create_future()
            thread = threading.Thread(target=self._run, args=(key, host), name=f"lookup of {host}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # The system gives no more threads.
                self._finish(key, _Answer([], str(error)))
        return lookup

    def _run(self, key: str, host: str) -> None:
        """The thread of one lookup."""
        answer = _answer(host)
        # A loop that is closed raises: no caller waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._finish, key, answer)

    def _finish(self, key: str, answer: _Answer) -> None:
        lookup = self._under_way.pop(key)
        if not lookup.done():
            lookup.set_result(answer)


def resolve_at_start(host: str, tell: Callable[[str], None]) -> list[NumericHost]:
    """What Resolver.resolve finds, for a process without a loop. Blocks, and handles signals meanwhile.

    No thread is left when it returns. Raises OSError.
    """
    numeric = NumericHost.parse(host)
    if numeric is not None:
        return [numeric]
    answers: list[_Answer] = []
    thread = threading.Thread(target=lambda: answers.append(_answer(host)), name=f"lookup of {host}", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(SLOW_S)
        if thread.is_alive():
            tell(f"its name is not resolved within {SLOW_S:g} s")
    return _hosts_of(answers[0])


def _answer(host: str) -> _Answer:
    try:
        return _Answer(look_up(host))
    except Exception as error:
        # A label above 63 characters is a UnicodeError of the idna codec.
        return _Answer([], str(error) or type(error).__name__)


def _hosts_of(answer: _Answer) -> list[NumericHost]:
    if not answer.hosts:
        raise OSError(answer.error or "its name has no address")
    return answer.hosts


def look_up(host: str) -> list[NumericHost]:
    """The addresses of a name, each once. Blocks. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    hosts = [
        NumericHost(family, str(address[0]), int(address[3]) if len(address) == 4 else 0)
        for family, _, _, _, address in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    return list(dict.fromkeys(hosts))


def _interface_number(zone: str) -> int:
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        # RFC 4007 11.2: a zone may be a number as well.
        if zone.isdecimal() and zone.isascii() and 0 < int(zone) < 2**31:
            return int(zone)
        raise OSError(f"{zone} is no interface of this machine") from None
