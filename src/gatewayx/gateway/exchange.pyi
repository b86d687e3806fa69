"""One HTTP request as one Gearman job; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.admission import Admission
from gatewayx.gateway.job_request import JobRequest
from gatewayx.gateway.owners import Owners
from gatewayx.gearman.pool import Pool
from gatewayx.http.problems import ALLOW as ALLOW
from gatewayx.http.problems import NO_ROOM_FOR_RESULT as NO_ROOM_FOR_RESULT
from gatewayx.http.records import Records
from gatewayx.http.request import RequestHandler

@final
class Gateway(RequestHandler):
    """Makes a job of each request."""

    def __init__(
        self,
        pool: Pool,
        admission: Admission,
        *,
        content_type: bytes,
        job_timeout_s: float,
        records: Records | None = None,
        owners: Owners | None = None,
        max_function_bytes: int = 512,
        refuse_client_unique: bool = False,
        plugin_compat: bool = False,
    ) -> None: ...
    def change(
        self,
        *,
        content_type: bytes,
        job_timeout_s: float,
        max_function_bytes: int,
        refuse_client_unique: bool,
        plugin_compat: bool,
    ) -> None:
        """Be as if it had been made with these, for requests that begin from now on; the Content-Type for all."""

    @property
    def open_exchanges(self) -> int: ...
    def counters(self) -> dict[str, int]: ...

@final
class Exchange(JobRequest):
    """One request and its job."""
