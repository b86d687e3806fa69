"""What a job server's connection and a worker's have in common; the .pxd has the C-level interface."""

import asyncio

class Output:
    """The sending side of a connection."""

    @property
    def transport(self) -> asyncio.Transport | None: ...
