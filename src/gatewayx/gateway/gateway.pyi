"""Which requests become jobs; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.access import Access
from gatewayx.gateway.admission import Admission
from gatewayx.gateway.background_jobs import BackgroundJobs
from gatewayx.gateway.common import Common
from gatewayx.gateway.kept_jobs import KeptJobs
from gatewayx.gateway.keys import Keys
from gatewayx.gateway.owners import Owners
from gatewayx.gearman.pool import Pool
from gatewayx.http.problems import ALLOW as ALLOW
from gatewayx.http.records import Records

@final
class Gateway(Common):
    """Makes a job of each request."""

    access: Access

    def __init__(
        self,
        pool: Pool,
        admission: Admission,
        *,
        content_type: bytes,
        job_timeout_s: float,
        records: Records | None = None,
        access: Access | None = None,
        owners: Owners | None = None,
        kept: KeptJobs | None = None,
        background_jobs: BackgroundJobs | None = None,
        keys: Keys | None = None,
        max_function_bytes: int = 512,
        max_batch: int = 1000,
        max_pipelined: int = 64,
        refuse_client_unique: bool = False,
        plugin_compat: bool = False,
    ) -> None: ...
    def change(
        self,
        *,
        content_type: bytes,
        job_timeout_s: float,
        max_function_bytes: int,
        max_batch: int,
        max_pipelined: int,
        refuse_client_unique: bool,
        plugin_compat: bool,
    ) -> None:
        """Be as if it had been made with these, for requests that begin from now on; the Content-Type for all."""

    def show(self, page: bytes, lines: bytes) -> None: ...
    def counters(self) -> dict[str, int]: ...
