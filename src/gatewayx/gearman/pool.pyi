"""The job servers behind this process; the .pxd has the C-level interface."""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, final

from gatewayx.core.budget import ByteBudget
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.turns import Turn
from gatewayx.gearman.admin import AdminConnection
from gatewayx.gearman.connection import JobServerConnection
from gatewayx.gearman.job import JobRouter
from gatewayx.gearman.keeper import Keeper
from gatewayx.gearman.pooled_server import PooledServer
from gatewayx.gearman.roster import MOST_SERVERS as MOST_SERVERS
from gatewayx.net.dialing import Dialer
from gatewayx.net.names import Resolver

BALANCES: dict[str, int]

@final
class BackgroundNote:
    """Background jobs of one identity at one job server, as far as this process knows."""

@final
class Pool(JobRouter):
    """Connections to all job servers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wheel: DeadlineWheel,
        servers: Iterable[Sequence[object]],
        *,
        max_result_bytes: int,
        budget: ByteBudget | None = None,
        turn: Turn | None = None,
        balance: str = "fewest",
        function_servers: Iterable[tuple[bytes, Iterable[int]]] = (),
        cancel_abandoned: bool = True,
        identity_key: bytes | None = None,
        resolver: Resolver | None = None,
        dialer: Dialer,
        **upkeep: Any,
    ) -> None: ...
    async def start(self) -> None:
        """Begin to connect; returns once every job server was tried: connected, refused, or 1 s gone."""

    @property
    def servers(self) -> list[PooledServer]: ...
    @property
    def is_closing(self) -> bool: ...
    async def close(self) -> None:
        """Close every connection; jobs that have not ended are lost."""

    async def change(
        self,
        servers: Iterable[Sequence[object]],
        *,
        max_result_bytes: int,
        balance: str,
        function_servers: Iterable[tuple[bytes, Iterable[int]]],
        cancel_abandoned: bool,
        **upkeep: Any,
    ) -> None:
        """Be as if it had been made with these, but for the jobs under way, which stay where they are.

        Connections that are up keep the TLS that they have. Returns once job servers that are new were tried, as
        start() does; only then do those leave that are no more, and functions go to others.
        """

    def change_tls(self, context: ssl.SSLContext | None) -> None:
        """Use this TLS context for connections from now on; those that are waited for are tried at once."""

    def admit(
        self, entry: int, order: tuple[object, ...], host: str, port: int, tls: bool, tls_name: str | None
    ) -> PooledServer | None: ...
    def place(self, server: PooledServer, order: tuple[object, ...]) -> None: ...
    def map_functions(self, mapping: list[tuple[bytes, Iterable[int]]]) -> None: ...
    def keeper(self, server: PooledServer) -> Keeper: ...
    def retire(self, server: PooledServer) -> None: ...
    def readmit(self, server: PooledServer) -> None: ...
    def drop(self, server: PooledServer) -> None: ...
    def counters(self) -> dict[str, int]: ...
    def servers_now(self) -> dict[str, dict[str, int]]: ...
    def job_connection(self, server: PooledServer, number: int) -> JobServerConnection: ...
    def admin_connection(self, server: PooledServer) -> AdminConnection: ...
    def came_up(self, server: PooledServer, connection: JobServerConnection | AdminConnection) -> None: ...
    def went_down(self, server: PooledServer, connection: JobServerConnection | AdminConnection) -> None: ...
