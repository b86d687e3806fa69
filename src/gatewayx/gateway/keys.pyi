"""Idempotency keys; the .pxd has the C-level interface."""

import asyncio
from typing import final

from gatewayx.core.counters import Counters
from gatewayx.core.shared import Shared
from gatewayx.gateway.kept_jobs import KeptJobs
from gatewayx.gateway.kept_room import KeptAnswer, KeptRoom

@final
class KeyRecord(KeptAnswer):
    """A key: the answer of its first request, or who waits for that."""

@final
class Keys:
    """The idempotency keys that a process owns.

    room: where the bodies of answers count. kept: the jobs that answers tell of. shared: where the numbers of all
    processes count. counters: where requests are counted. hash_key: 16 bytes, by which all processes know keys. ttl_s:
    how long a key is known after its job's end. max_keys: known to all processes at once.
    """

    all_ended: asyncio.Event
    def __init__(
        self,
        room: KeptRoom,
        kept: KeptJobs,
        shared: Shared,
        counters: Counters,
        hash_key: bytes,
        *,
        ttl_s: float,
        max_keys: int,
    ) -> None: ...
    def change(self, *, ttl_s: float, max_keys: int) -> None:
        """Be as if it had been made with these, for all keys."""
    def counters(self) -> dict[str, int]:
        """What is known now, by name."""
    def tick(self, now_s: float) -> None:
        """Forget the keys whose time is over; now_s: by time.monotonic()."""
