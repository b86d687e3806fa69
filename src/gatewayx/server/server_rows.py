"""Which job servers the worker process of a place is connected to, in the memory that the processes share.

A job server has a slot of each place, found by the hash of its name, which is the same in all processes. Addresses of a
name with each:// come and go without end, so the slot of one that is no more is taken when there is no other.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterable
from typing import NamedTuple

from gatewayx.gearman.roster import MOST_SERVERS

# Twice as many as there are at a time, so that one that has left and comes back goes on counting most often.
SLOTS = 2 * MOST_SERVERS
_HASH, _CONNECTIONS, _RECONNECTS, _SLOT_WORDS = range(4)
SERVER_ROW_BYTES = SLOTS * _SLOT_WORDS * 8


class ServerConnections(NamedTuple):
    """What a worker process has of one job server; or several processes together."""

    connections: int
    # How many were made anew, since the start of the gateway.
    reconnects: int


class ServerRow:
    """The slots of one place. memory: zeros at first. offset: where SERVER_ROW_BYTES begin in it."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._words = memoryview(memory)[offset : offset + SERVER_ROW_BYTES].cast("Q")

        # What was told last; None before anything was, when the row may be another's.
        self._connections: dict[int, int] | None = None

    def tell(self, servers: Iterable[tuple[int, int, int]]) -> None:
        """For the worker process: of each job server that it has the hash, the connections, and the new reconnects.

        One that has the hash of another is the same one, by another entry of the settings.
        """
        connections: dict[int, int] = {}
        reconnects: dict[int, int] = {}
        for name_hash, connected, new in servers:
            connections[name_hash] = connections.get(name_hash, 0) + connected
            if new:
                reconnects[name_hash] = reconnects.get(name_hash, 0) + new
        if connections == self._connections and not reconnects:
            return
        self._connections = connections
        words = self._words
        hashes = list(words[_HASH::_SLOT_WORDS])
        for slot, name_hash in enumerate(hashes):
            if name_hash and name_hash not in connections:
                words[slot * _SLOT_WORDS + _CONNECTIONS] = 0
        for name_hash, connected in connections.items():
            at = _SLOT_WORDS * self._slot(hashes, connections, name_hash)
            words[at + _CONNECTIONS] = connected
            words[at + _RECONNECTS] += reconnects.get(name_hash, 0)

    def _slot(self, hashes: list[int], known: Collection[int], name_hash: int) -> int:
        """The slot of the job server; taken if it has none."""
        if name_hash in hashes:
            return hashes.index(name_hash)
        slot = hashes.index(0) if 0 in hashes else next(at for at, other in enumerate(hashes) if other not in known)
        at = slot * _SLOT_WORDS
        self._words[at + _RECONNECTS] = 0
        self._words[at + _HASH] = hashes[slot] = name_hash
        return slot

    def read(self) -> Iterable[tuple[int, ServerConnections]]:
        """The hashes and what was told of each last."""
        words = list(self._words)
        for at in range(0, len(words), _SLOT_WORDS):
            if words[at + _HASH]:
                yield words[at + _HASH], ServerConnections(words[at + _CONNECTIONS], words[at + _RECONNECTS])
