"""Jobs, and questions about them, for plain Python; the .pxd has the C-level interface."""

from collections.abc import Callable
from typing import Any

from gatewayx.gearman.job import Job, JobListener, StatusListener
from gatewayx.gearman.packet import PacketType
from gatewayx.gearman.pool import Pool
from gatewayx.gearman.pooled_server import PooledServer

class PythonStatus(StatusListener):
    """Keeps what it is told of one question. on_answer: called with each answer."""

    def __init__(self, on_answer: Callable[[tuple[Any, ...]], object] | None = None) -> None: ...
    @property
    def answers(self) -> list[tuple[Any, ...]]: ...
    def ask(self, pool: Pool, server: PooledServer, unique: bytes) -> None:
        """Ask the job server for the job with this unique."""

    def cancel(self, pool: Pool, server: PooledServer, life: int, handle: bytes, unique: bytes) -> str | None:
        """Have it take a background job out of its queue, and ask then; why it cannot be asked, or None."""

class PythonJob(JobListener):
    """Keeps what it is told of one job. on_event: called with each event."""

    def __init__(self, on_event: Callable[[tuple[Any, ...]], object] | None = None) -> None: ...
    @property
    def job(self) -> Job | None: ...
    @property
    def events(self) -> list[tuple[Any, ...]]: ...
    @property
    def life(self) -> int: ...
    def submit(
        self,
        pool: Pool,
        function: bytes,
        workload: bytes = b"",
        *,
        unique: bytes,
        packet_type: PacketType = ...,
        identity: bytes | None = None,
        streamed: bool = False,
        timeout_s: float = 60.0,
    ) -> bool:
        """Submit the job; whether a job server takes it."""

    def cancel(self, status: PythonStatus) -> str | None:
        """Cancel the job while it is waited for; why the job server cannot be asked, or None."""

    def abandon(self) -> None:
        """Wait for it no longer."""
