"""What the worker processes of a gateway say to each other, over streams that only take notes."""

from __future__ import annotations

import os
from collections.abc import Callable

from fuzz.world import FakeStream, Loop
from gatewayx.net.stream import StreamOwner
from gatewayx.server.relay_sockets import RelaySockets

# What one read takes; where pieces are cut, at least so much of what is there.
READ_BYTES = 1 << 16
LEAST_PART = 8


class Link:
    """A connection of one worker process of the gateway to another, both of whose ends are streams of the gateway."""

    def __init__(self, links: Links, asker: StreamOwner, answerer: StreamOwner) -> None:
        self.ends = (LinkEnd(links, asker), LinkEnd(links, answerer))
        for one, other in zip(self.ends, reversed(self.ends), strict=True):
            one.other = other

    def lose(self) -> None:
        """Whoever answers has been killed."""
        for end in self.ends:
            end.lose(None)


class LinkEnd(FakeStream):
    """One end of it: what it is given comes to the other end in the next turn, as far as that reads."""

    other: LinkEnd

    def __init__(self, links: Links, owner: StreamOwner) -> None:
        super().__init__(links.loop, owner)
        self.links = links
        # What has come, and that nothing more will.
        self.arrived = bytearray()
        self.ends = False
        self.queued = False

    def peer_process(self) -> tuple[int, int]:
        """Stream."""
        return (os.getpid(), os.geteuid())

    def peer(self) -> None:
        """Stream: a unix socket has no address."""

    def incoming_bytes(self) -> int:
        """Stream."""
        return len(self.arrived)

    def took(self, data: bytes) -> None:
        """FakeStream: the other end has it."""
        if not self.other.gone:
            self.other.arrived += data
            self.other.arrive()
        if self.wrote_eof and not self.pending_bytes():
            self.other.end()

    def write_eof(self) -> int:
        """Stream."""
        super().write_eof()
        if not self.pending_bytes():
            self.other.end()
        return 0

    def resume(self) -> int:
        """Stream."""
        super().resume()
        self.arrive()
        return 0

    def lose(self, error: Exception | None) -> None:
        """FakeStream: it is gone, of which the other end hears behind what it was sent."""
        was_gone = self.gone
        super().lose(error)
        if not was_gone:
            self.other.end()

    def end(self) -> None:
        """Nothing more comes behind what has arrived."""
        if self.ends or self.closed:
            return
        self.ends = True
        if self.reads:
            self.arrive()
        else:
            self.owner.hung_up()

    def arrive(self) -> None:
        """Be read in the next turn."""
        if not self.queued and self.reads and (self.arrived or self.ends):
            self.queued = True
            self.loop.call_soon(self._read)

    def _read(self) -> None:
        self.queued = False
        if not self.reads or self.closed:
            return
        if self.arrived:
            size_bytes = READ_BYTES
            if self.links.cut_bytes:
                size_bytes = max(self.links.cut_bytes, len(self.arrived) // LEAST_PART)
            data = bytes(self.arrived[:size_bytes])
            del self.arrived[:size_bytes]
            self.receive(data)
            self.arrive()
        elif self.ends:
            self.receive_eof()


class Links(RelaySockets):
    """Between the worker processes of a gateway."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        # By place: who makes the owner of a stream that is accepted.
        self.accepting: list[Callable[[], StreamOwner]] = []
        self.links: list[Link] = []
        # Whether whoever connects is refused, as by a full queue.
        self.refusing = False
        # The size of the pieces in which it is read; 0 for whole.
        self.cut_bytes = 0
        # What the kernel takes at each end; None while both read.
        self.room_bytes: int | None = None

    def connect(self, place: int, owner: StreamOwner, poller: object) -> bool:
        """RelaySockets."""
        self.links = [link for link in self.links if not all(end.gone for end in link.ends)]
        if self.refusing:
            return False
        link = Link(self, owner, self.accepting[place]())
        self.links.append(link)
        for end in link.ends:
            end.room_bytes = self.room_bytes
            end.open()
        return True

    def stop_taking(self, room_bytes: int) -> None:
        """The kernel takes so many bytes more of each end."""
        self.room_bytes = room_bytes
        for link in self.links:
            for end in link.ends:
                end.stop_taking(room_bytes)

    def take(self) -> None:
        """The kernel takes whatever comes."""
        self.room_bytes = None
        for link in self.links:
            for end in link.ends:
                end.take()

    def lose(self, number: int) -> None:
        """One of those that are there is gone."""
        open_links = [link for link in self.links if not link.ends[0].gone]
        if open_links:
            open_links[number % len(open_links)].lose()

    def is_ours(self, process: tuple[int, int] | None) -> bool:
        """RelaySockets: there is nobody else."""
        return True

    def close(self) -> None:
        """RelaySockets."""
