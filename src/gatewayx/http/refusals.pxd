"""Who waits for a refusal, and what was refused."""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.http.request cimport Request, RequestOwner
from gatewayx.http.response cimport RetryAfter

cpdef enum:
    # Malformed and late requests that are answered at once, a tick of the wheel; each of the others waits for
    # REFUSAL_DELAY_MS, so that a client who floods as fast as the answers come is slowed down and nobody else is
    # (HAProxy: tarpit).
    PROMPT_REFUSALS = 64
    REFUSAL_DELAY_MS = 50
    # How often the refusals are looked at whose time has come, and how many are answered at most in a loop turn: a hundred
    # answered together would hold up everybody else.
    REFUSAL_TICK_MS = 2
    REFUSALS_PER_TURN = 16
    # Refusals that wait at once; above, they are answered at once.
    MAX_WAITING_REFUSALS = 10000
    # Of the bytes that came when a request was refused, shown in the log.
    EXAMPLE_BYTES = 64


cdef class Refusable(RequestOwner):
    """A client whose refusal may have to wait."""
    # The loop time until which it waits; meaningless while none does.
    cdef double refusal_due_s

    # The refusal has waited long enough.
    cdef int refusal_due(self) except -1
    # The host of the client, for the log; empty if it has none.
    cdef str peer_host(self)


cdef class Refusals:
    cdef object loop
    cdef DeadlineWheel wheel
    # What every 503 and 429 says of when to come again.
    cdef RetryAfter retry_after
    # Why requests and connections were refused since the last take_events(): kind to [count, example, peer]. As many
    # entries as there are kinds.
    cdef dict events
    # Clients whose refusal waits, the next one due first; at most MAX_WAITING_REFUSALS.
    cdef object waiting
    # The next look at them is due; there is never more than one.
    cdef bint scheduled
    # The tick of the last refusal, and how many it had.
    cdef long long last_tick
    cdef int in_tick
    # Keeps the row alive to which `counts` points.
    cdef Counters counted_in
    cdef Counts* counts

    # Something was refused: counted, and the first of a kind kept as an example. request: of which one, None for none.
    cdef int note(self, str kind, Refusable client, bytes data, Request request) except -1
    # The header lines of a problem: those given or else its own, and Retry-After where the cause may pass.
    cdef bytes headers(self, object problem, bytes headers)
    # Whether the client's refusal must wait; it is in `waiting` then.
    cdef bint must_wait(self, Refusable client) except -1


# Whom an address stands for: itself, or for IPv6 the /64 that one customer has; None for no address.
cdef bytes address_key(peer)
