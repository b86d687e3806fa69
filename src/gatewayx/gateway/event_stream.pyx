"""The events of a kept job as an answer that comes as they happen."""

cimport cython

from gatewayx.core.counters cimport Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.owners cimport Asked
from gatewayx.gateway.watching cimport Watcher
from gatewayx.http.request cimport Request


@cython.final
cdef class EventStream(Watcher):
    """The events of one job, for one client."""


cdef EventStream begin_stream(
    Asked asked, Request request, KeptJob job, long long after, bytes headers, DeadlineWheel wheel, Counts* counts
):
    raise NotImplementedError
