"""What the X-Gearman- headers of a request ask for."""

from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.http.request cimport Request

cdef enum:
    # Digits and point of a timeout; a longer value is no timeout.
    MAX_TIMEOUT_DIGITS = 32

# What begins with this is made by a gateway, never given by a client.
cdef bytes UNIQUE_PREFIX

# Whether it may be one of our headers; the name as sent.
cdef bint is_ours(const char* name, Py_ssize_t name_bytes) noexcept

# Read the request's headers into the job request, whose timeout_s is default and maximum; of a streamed one that is
# streamed_timeout_s. Raises RequestError. refuse_unique: clients may not give uniques.
cdef int read_headers(JobRequest wanted, Request request, bint refuse_unique, double streamed_timeout_s) except -1

# The same as gearmand's HTTP plugin reads them: in any case, and what says nothing to it is as if it were not there.
cdef int read_plugin_headers(JobRequest wanted, Request request, bint refuse_unique) except -1

# Why a text may be no unique of a client, as what follows its name; None if it may.
cdef str unique_fault(bytes value, bint plugin_compat)
