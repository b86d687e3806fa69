"""Which pages may ask, and by which names the gateway is asked for.

A browser lets any page send a request to anywhere; what CORS (https://fetch.spec.whatwg.org) withholds from it is the answer.
A job has run by then, so here a page that may not ask is refused before the body of its request is read. It cannot lie
about where it comes from: Origin and Sec-Fetch-Site are the browser's. Whatever else sends requests can, and need not.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp

from gatewayx.core.grammar cimport is_name
from gatewayx.gateway.asking cimport Asking, Value
from gatewayx.gateway.hosts cimport Hosts, is_https_origin_of, is_origin_of, is_own_machine
from gatewayx.http.request cimport METHOD_OPTIONS, Request

from gatewayx.gateway import cors
from gatewayx.http import outcomes
from gatewayx.http.problems import FOREIGN_PAGE, MISDIRECTED, PREFLIGHT_REFUSED, RequestError

cdef str OWN_MACHINE_DETAIL = (
    "a page from elsewhere on the web asks a gateway on its visitor's own machine; --origin with the page's origin allows it"
)

cdef bytes VARY = cors.VARY
cdef bytes ALLOW_LINES = cors.allow_lines()
cdef frozenset METHODS = frozenset(method.encode() for method in cors.METHODS)
cdef frozenset HEADERS = frozenset(header.name.lower().encode() for header in cors.REQUEST_HEADERS)


cdef AllowedOrigin _allowed(bytes origin):
    cdef AllowedOrigin allowed = AllowedOrigin.__new__(AllowedOrigin)
    cdef bytes line = cors.allow_origin_line(origin)
    allowed.origin = origin
    allowed.answer_lines = line + cors.VARY + cors.expose_line()
    allowed.preflight_lines = line + cors.PREFLIGHT_VARY
    return allowed


@cython.final
cdef class AllowedOrigin:
    """An origin whose pages may ask."""


@cython.final
cdef class Origins:
    """Which pages may ask.

    origins: theirs as browsers write them, or `*` alone; none for all but those that reach into their visitor's own
    machine. hosts: the names by which the gateway is asked for, as Hosts has them; none for any.
    """

    def __init__(self, tuple origins=(), tuple hosts=()):
        self.allowed = {origin: _allowed(origin) for origin in origins} if origins else None
        self.only = next(iter(self.allowed.values())) if len(origins) == 1 else None
        self.any_page = b"*" in origins
        self.hosts = Hosts(hosts) if hosts else None
        self.is_set = self.allowed is not None or self.hosts is not None

    cdef bint check(self, Request request, Asking* asking) except -1:
        cdef AllowedOrigin found = None
        cdef bint is_page = asking.origin.text != NULL
        cdef bint is_preflight = is_page and request.method == METHOD_OPTIONS and asking.wanted_method.text != NULL
        if self.allowed is not None:
            found = self._find(asking)
            if found is None:
                _add_lines(request, VARY)
            else:
                _add_lines(request, found.preflight_lines if is_preflight else found.answer_lines)
        if self.hosts is not None and not self.hosts.have(&asking.host):
            raise RequestError(MISDIRECTED)
        if self.allowed is None:
            if is_page or asking.fetch_site.text != NULL:
                self._check_own_machine(asking)
            return False
        if found is None:
            if is_page or _is_cross_site(&asking.fetch_site):
                raise RequestError(FOREIGN_PAGE)
            return False
        return is_preflight and _answer_preflight(request, asking)

    cdef int name(self, Request request, Asking* asking) except -1:
        cdef AllowedOrigin found
        if self.allowed is None:
            return 0
        # Where the head was not read to its end, the page is taken for the only one that may see the answer: any other's
        # browser will not show it.
        found = self._find(asking) if asking.origin.text != NULL else self.only
        return _add_lines(request, VARY if found is None else found.answer_lines)

    cdef AllowedOrigin _find(self, Asking* asking):
        """Whose page asks; None for nobody's, or one that may not."""
        cdef AllowedOrigin last = self.last
        cdef const char* text = asking.origin.text
        cdef Py_ssize_t size = asking.origin.size
        if self.any_page:
            return self.only
        if asking.origins != 1:
            return None
        if last is not None and PyBytes_GET_SIZE(last.origin) == size and (
            memcmp(PyBytes_AS_STRING(last.origin), text, size) == 0
        ):
            return last
        last = self.allowed.get(text[:size])
        if last is not None:
            self.last = last
        return last

    cdef int _check_own_machine(self, Asking* asking) except -1:
        """Refuse a page from the web that asks a gateway on its visitor's machine.

        What a proxy has passed on was let in there: a page cannot add its headers without asking first.
        """
        if asking.fetch_site.text != NULL:
            if not _is_cross_site(&asking.fetch_site):
                return 0
        elif asking.origins == 1 and is_origin_of(&asking.origin, &asking.host):
            return 0
        if asking.forwarded or not is_own_machine(&asking.host):
            return 0
        raise RequestError(FOREIGN_PAGE, OWN_MACHINE_DETAIL)


cdef bint _answer_preflight(Request request, Asking* asking) except -1:
    """Tell what may be asked; raises RequestError if the page wants more than that."""
    cdef bytes method = asking.wanted_method.text[: asking.wanted_method.size]
    cdef bytes names
    if method not in METHODS:
        raise RequestError(PREFLIGHT_REFUSED, "the method that the page asks for is not served")
    if asking.wanted_headers.text != NULL:
        names = asking.wanted_headers.text[: asking.wanted_headers.size]
        for name in names.lower().split(b","):
            name = name.strip(b" \t")
            if name and name not in HEADERS:
                raise RequestError(PREFLIGHT_REFUSED, "the page asks for a header that is not listed for pages")
    request.outcome = <int> outcomes.NO_CONTENT
    request.owner.answer(request, 204, None, PyBytes_AS_STRING(ALLOW_LINES), PyBytes_GET_SIZE(ALLOW_LINES), None)
    return True


cdef int _add_lines(Request request, bytes lines) except -1:
    request.answer_lines = lines if request.answer_lines is None else request.answer_lines + lines
    return 0


cdef bint is_of_other_page(const Asking* asking) noexcept:
    # Browsers say over TLS where each request comes from (Fetch Metadata); of a link that another program has opened, as of an address
    # that was typed, they say "none". Those that say nothing are asked for by Origin, which all have for what is no GET.
    if asking.fetch_site.text != NULL:
        return not is_name(asking.fetch_site.text, asking.fetch_site.text + asking.fetch_site.size, b"same-origin", 11)
    if asking.origin.text == NULL:
        return False
    # A page without TLS may be anybody's on the way.
    return asking.origins != 1 or not is_https_origin_of(&asking.origin, &asking.host)


cdef inline bint _is_cross_site(const Value* site) noexcept:
    return site.text != NULL and is_name(site.text, site.text + site.size, b"cross-site", 10)
