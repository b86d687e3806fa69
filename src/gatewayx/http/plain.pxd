"""Plain heads, which are nearly all: read in one pass, without llhttp. No I/O; no object is made.

A head is plain when all of this holds, and everything else is left to HeadReader (http/head):
- the method is GET, HEAD, POST, PUT or OPTIONS; the target begins with "/" and is made of the bytes 0x21 to 0x7E without
  "#", each "%" followed by two hexadecimal digits; the version is HTTP/1.1;
- every line ends with CRLF; a header line is a name of one or more tchar, ":", any number of SP, and a value that is empty
  or made of the bytes 0x20 to 0x7E and does not end with SP;
- there is exactly one Host, a valid one; at most one Content-Length, of 1 to 15 digits; at most one Connection, exactly
  "keep-alive" or "close", letters of any case; and none of Transfer-Encoding, TE, Trailer, Upgrade, Expect,
  Proxy-Connection, Keep-Alive and HTTP2-Settings;
- it is within all limits, and has no more than MAX_WANTED_LINES lines that the handler wants.
"""

from gatewayx.http.limits cimport Limits
from gatewayx.http.request cimport Method, RequestHandler

cdef enum:
    # Browsers send no more of those that the gateway knows; a head with more is read the long way.
    MAX_WANTED_LINES = 10

# What a walk has come to.
cdef enum Reach:
    # It is plain so far, and goes on.
    UNFINISHED = 0
    # It is complete and plain.
    WHOLE = 1
    # It is not plain, or breaks a limit.
    NOT_PLAIN = 2

# What stands where the walk goes on.
cdef enum HeadPart:
    IN_METHOD = 0
    IN_TARGET
    IN_VERSION
    # The first byte of a header line, or the CR of the empty line.
    AT_LINE
    IN_NAME
    IN_BLANKS
    IN_VALUE


# A header line that the handler wants, in bytes from the beginning of the request line.
cdef struct WantedLine:
    unsigned int name
    unsigned int name_end
    unsigned int value
    unsigned int value_end


# What the walk has found so far. Places are bytes from the beginning of the request line.
cdef struct PlainHead:
    # Where the walk goes on; 0 before it has begun.
    unsigned int walked
    HeadPart part
    Method method
    unsigned int target
    # What follows the first "?"; 0 without one.
    unsigned int query
    unsigned int target_end
    # The first header line.
    unsigned int lines
    # The line being walked, and in it the colon and the value once they are reached.
    unsigned int line
    unsigned int name_end
    unsigned int value
    # Behind the empty line, once the head is whole.
    unsigned int end
    # Header lines so far.
    int header_lines
    bint has_host
    # Its value.
    unsigned int host
    unsigned int host_end
    bint has_connection
    # Connection is "close".
    bint closes
    int wanted_lines
    # As RequestHandler.wants_header() has told.
    int wanted_kinds
    # -1 without a Content-Length.
    long long content_length
    WantedLine[MAX_WANTED_LINES] wanted


# Be ready for another head.
cdef inline void forget_head(PlainHead* head) noexcept:
    head.walked = 0
    head.part = IN_METHOD
    head.query = 0
    head.header_lines = 0
    head.has_host = False
    head.has_connection = False
    head.closes = False
    head.wanted_lines = 0
    head.wanted_kinds = 0
    head.content_length = -1


# Walk on. data: the head from its request line on, size: at least 1, and no less than before; what was walked is not read
# again. Returns a Reach: after UNFINISHED it may be called with more; after NOT_PLAIN the head is of no use.
cdef int walk_head(
    PlainHead* head, const char* data, Py_ssize_t size, Limits limits, RequestHandler handler
) except -1
