"""What a gateway still holds when its last client has gone: nothing, for the fuzz targets and the tests alike."""

from __future__ import annotations

from gatewayx.server.process import GatewayProcess

# Counted since the start; connections to job servers, and what is kept for the clients to come. Every other counter is
# of something that is held for a client.
NOT_HELD = {
    "admission.refused",
    "budget.refused",
    "http.answers_cut",
    "http.answers_ended",
    "http.arrivals_ended",
    "http.connections_accepted",
    "http.connections_evicted",
    "http.connections_refused",
    "http.idle_parsers",
    "http.refusals_delayed",
    "http.requests_abandoned",
    "http.requests_answered",
    "http.requests_refused",
    "http.writes_timed_out",
    "keys.ended",
    "pool.cancels_requested",
    "pool.connections",
    "pool.dropped_packets",
    "pool.known_backgrounds",
    "pool.moved_jobs",
}
# Held until a job server tells that a job has ended which no client waits for any more.
OF_JOB_SERVERS = ("pool.abandoned_jobs", "pool.pins")


def still_held(process: GatewayProcess) -> dict[str, int]:
    """What is held now, by name; deadlines are among it. Empty once no client and no job is left."""
    counters = process.counters() | {"armed deadlines": process.wheel.armed}
    return {name: count for name, count in counters.items() if count and name not in NOT_HELD}
