"""Which headers of a request tell who asks, and from where."""

from gatewayx.http.request cimport Request

cdef enum:
    # What the headers are about that are wanted, as bits.
    ABOUT_THE_JOB = 1
    ABOUT_WHO_ASKS = 2
    FOR_THE_LOG = 4
    ABOUT_THE_ANSWER = 8
    ABOUT_THE_KEY = 16


# A header's value, where it lies in what was received; NULL without one, and the first one's where there are several.
cdef struct Value:
    const char* text
    Py_ssize_t size


cdef struct Asking:
    Value host
    Value origin
    # Sec-Fetch-Site and Sec-Fetch-Mode.
    Value fetch_site
    Value fetch_mode
    Value authorization
    # Access-Control-Request-Method and -Headers, of a preflight.
    Value wanted_method
    Value wanted_headers
    # How many lines there were of these.
    int origins
    int authorizations
    # A proxy has passed it on: Forwarded, X-Forwarded-For or Via.
    bint forwarded


# Whether a header of this name is one of them, Host aside; the name as sent.
cdef bint tells_who_asks(const char* name, Py_ssize_t name_bytes) noexcept
cdef int read_asking(Request request, Asking* asking) except -1
