"""A process that nobody asks anything ticks less often, and loses no time by it."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from gatewayx.server.listeners import TICK_S
from gatewayx.server.process import REST_TICKS
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, post

pytestmark = pytest.mark.anyio

REST_S = REST_TICKS * TICK_S
# Shorter than a rest: a deadline that is counted from the last tick would be early.
FIRST_BYTE_TIMEOUT_S = 0.3


class Beats:
    """When the loop of a running gateway was seen to have turned, for a time."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.place = gateway.process.places[0]

    async def seen_in(self, seconds: float) -> list[float]:
        seen: list[float] = []
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            if not seen or self.place.beat_s != seen[-1]:
                seen.append(self.place.beat_s)
            await asyncio.sleep(TICK_S / 10)
        return seen

    async def rests(self) -> None:
        """Return once the last two beats were a rest apart."""
        seen: list[float] = []

        async def is_rested() -> bool:
            seen[:] = await self.seen_in(3 * REST_S)
            return any(later - sooner > REST_S - TICK_S for sooner, later in itertools.pairwise(seen))

        while not await is_rested():
            pass


async def test_ticks_are_rarer_until_somebody_asks(embedded):
    async with running_gateway([embedded.address], status_interval_s=60.0) as gateway:
        beats = Beats(gateway)
        await beats.rests()
        async with HttpClient(gateway.address) as client:
            client.send(b"POST /f HTTP/1.1\r\n")
            await eventually(gateway.held)
            seen = await beats.seen_in(3 * REST_S)
            assert min(later - sooner for sooner, later in itertools.pairwise(seen)) < 2 * TICK_S
        await beats.rests()


async def test_deadlines_are_not_early_for_those_who_end_a_rest(embedded):
    settings = {"first_byte_timeout_s": FIRST_BYTE_TIMEOUT_S, "status_interval_s": 60.0}
    async with running_gateway([embedded.address], **settings) as gateway:
        beats = Beats(gateway)
        await beats.rests()
        last_s = beats.place.beat_s
        await eventually(lambda: beats.place.beat_s != last_s)
        await asyncio.sleep(REST_S * 0.8)
        async with HttpClient(gateway.address) as client:
            began_s = time.monotonic()
            assert await client.rest() == b""
            assert time.monotonic() - began_s >= FIRST_BYTE_TIMEOUT_S


async def test_a_kept_connection_that_is_idle_ends_no_rest_and_is_closed_in_time(embedded):
    async with running_gateway([embedded.address], keepalive_timeout_s=2.0, status_interval_s=60.0) as gateway:
        beats = Beats(gateway)
        async with HttpClient(gateway.address) as client:
            began_s = time.monotonic()
            client.send(post(b"/f", b"", b"X-Gearman-Background: true"))
            assert (await client.response()).status == 200
            await beats.rests()
            assert await client.rest() == b""
            assert time.monotonic() - began_s >= 2.0 - TICK_S
