"""The shared memory of `gatewayx serve`, as the test sees it at any moment: all counts, and what is taken of bounds.

The processes' anonymous mapping is replaced by one of a memfd, of which the test has a mapping as well. So it can look
as often as it likes, while processes are stopped or flooded, and after they have ended.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections import Counter
from types import SimpleNamespace
from unittest import mock

from gatewayx.config.settings import Settings
from gatewayx.server import places
from support.gearmand import die_with_parent

SAMPLE_S = 0.0001
# Where a Sampler counts how often it has looked, behind the bounds.
LOOKS = 100

# Run by the process before anything else.
REPLACED = """
import mmap, types
from gatewayx.server import places

def in_memfd(_, size_bytes):
    with open({path!r}, "r+b") as file:
        file.truncate(size_bytes)
        return mmap.mmap(file.fileno(), size_bytes)

places.mmap = types.SimpleNamespace(mmap=in_memfd)
"""


class SharedMemory:
    """Of a gateway with so many worker processes and these bounds; a context manager.

    workers, max_connections: as the process is told. Its attribute `before` is what ServeProcess is to run before.
    """

    def __init__(self, workers: int, max_connections: int = Settings().max_connections) -> None:
        self.workers = workers
        self.max_connections = max_connections
        self._file = os.memfd_create("gatewayx-places")
        self.before = REPLACED.format(path=f"/proc/{os.getpid()}/fd/{self._file}")

    def attach(self) -> None:
        """See it from now on; to be called once the gateway listens."""

        def of_file(_: int, size_bytes: int) -> mmap.mmap:
            assert os.fstat(self._file).st_size == size_bytes, "the gateway has other bounds"
            return mmap.mmap(self._file, size_bytes)

        with (
            mock.patch.object(places, "mmap", SimpleNamespace(mmap=of_file)),
            # The keys in the memory are the gateway's, for processes that have not begun yet.
            mock.patch.object(places.Places, "id_keys", ()),
        ):
            self.places = places.Places(self.workers, self.max_connections)
        self.shared = self.places.shared()
        self._rows = [row.counters() for row in self.places.rows]

    def counters(self) -> Counter[str]:
        """What all places have counted together since the start."""
        total: Counter[str] = Counter()
        for row in self._rows:
            total.update(row.read())
        return total

    def taken(self) -> dict[str, int]:
        """What all places have taken of each bound."""
        return self.shared.read()

    def __enter__(self) -> SharedMemory:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)


class Sampler:
    """A process that looks all the time at what is taken, for the highest of each; a context manager."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._seen = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    def _look(self) -> None:
        while True:
            for number, count in enumerate(self._memory.taken().values()):
                self._seen[number] = max(self._seen[number], count)
            self._seen[LOOKS] += 1
            time.sleep(SAMPLE_S)

    @property
    def most(self) -> dict[str, int]:
        """What was seen so far, by the name of the bound."""
        return dict(zip(self._memory.taken(), self._seen, strict=False))

    @property
    def looks(self) -> int:
        """How often it has looked."""
        return self._seen[LOOKS]

    def __enter__(self) -> Sampler:
        self._process_id = os.fork()
        if self._process_id == 0:
            die_with_parent()
            try:
                self._look()
            finally:
                os._exit(1)
        return self

    def __exit__(self, *exception: object) -> None:
        os.kill(self._process_id, signal.SIGKILL)
        os.waitpid(self._process_id, 0)
