"""How a test knows that a job server has a job: that it is in flight tells only that it is about to be written."""

from __future__ import annotations

from support.gateway import RunningGateway
from support.http import ask, post


async def upstream_has_read(gateway: RunningGateway, function: bytes) -> None:
    """Return once the job server has handled all that the gateway sent: one connection's answers keep their order.

    The gateway has no more than one connection to it.
    """
    answer = await ask(gateway.address, post(b"/" + function + b"-fence", b"", b"X-Gearman-Background: true"))
    assert answer.status == 200
