"""Which pages may ask, and by which names the gateway is asked for."""

from gatewayx.gateway.asking cimport Asking
from gatewayx.gateway.hosts cimport Hosts
from gatewayx.http.request cimport Request


# Whether a browser may have sent the request for another page than one of the gateway's own origin, or for a link.
cdef bint is_of_other_page(const Asking* asking) noexcept


cdef class AllowedOrigin:
    # As browsers write it, or "*" for all.
    cdef bytes origin
    # The header lines that every answer to its pages has, and those of a preflight.
    cdef bytes answer_lines
    cdef bytes preflight_lines


cdef class Origins:
    # Origins or hosts were set.
    cdef bint is_set
    # An AllowedOrigin by each origin; None while none are set.
    cdef dict allowed
    # The only one, which may be "*"; None for several or none.
    cdef AllowedOrigin only
    cdef bint any_page
    # Of a request that came last; None before the first one.
    cdef AllowedOrigin last
    # None while the gateway may be asked for by any name.
    cdef Hosts hosts

    # Look at where a request comes from. Returns whether it was answered, as a preflight is; raises RequestError. What it says of
    # answer lines the request has from then on.
    cdef bint check(self, Request request, Asking* asking) except -1
    # Set the answer lines alone, of a request that is refused anyhow and of which not all may be known.
    cdef int name(self, Request request, Asking* asking) except -1
    cdef AllowedOrigin _find(self, Asking* asking)
    cdef int _check_own_machine(self, Asking* asking) except -1
