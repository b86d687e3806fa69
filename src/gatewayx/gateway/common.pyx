"""What all exchanges of a process have in common; the .pxd says what each field means."""

from gatewayx.gateway.job_request cimport UniqueText
from gatewayx.gateway.tokens cimport Token
from gatewayx.http.request cimport RequestHandler


cdef class Common(RequestHandler):
    """The job servers, bounds and settings of all exchanges."""

    cdef Token token_of(self, bytes mark):
        return None

    cdef void next_unique(self, UniqueText* unique) noexcept:
        cdef int place = self.own_unique.size - 1
        while self.own_unique.text[place] == c"9":
            self.own_unique.text[place] = c"0"
            place -= 1
        self.own_unique.text[place] += 1
        unique[0] = self.own_unique
