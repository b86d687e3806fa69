"""The worker processes of a gateway, all in one process and over streams that only take notes."""

from __future__ import annotations

from fuzz.links import Links
from fuzz.world import JobServer, PlaceDialer
from gatewayx.config.settings import Settings
from gatewayx.server.places import State
from gatewayx.server.process import GatewayProcess, places_for


async def make_processes(settings: Settings, server: JobServer, links: Links, workers: int) -> list[GatewayProcess]:
    """So many of them, that serve; several relay to each other over `links`. Their pools are not started."""
    places = places_for(settings, workers)
    # Which of them owns a unique is the same in each run.
    places.identity_key = bytes(len(places.identity_key))
    processes = []
    for place in range(workers):
        relay_sockets = links if workers > 1 else None
        dialer = PlaceDialer(server, place)
        process = GatewayProcess(settings, dialer, places=places, place=place, relay_sockets=relay_sockets)
        places[place].state = State.SERVING
        # Time passes in leaps here, for all alike.
        process.standstill_s = float("inf")
        process._tick()
        links.accepting.append(process.http.relay_connection)
        processes.append(process)
    return processes
