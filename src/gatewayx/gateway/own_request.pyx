"""A request that the gateway makes itself, for a job that no request of a client is alone with.

Theory of operation. An exchange knows its client as the owner of its request, whoever that is. What is to run as any other job does,
but is answered to somebody else than the connection that has asked, is a request of its own, whose owner this is: a job that has
an idempotency key belongs to the key, and a job of a batch to its line.
"""

import logging

from libc.string cimport memcpy
from libc.stdint cimport uint64_t

from gatewayx.gateway.common cimport Common
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.http.request cimport METHOD_POST, Request, RequestOwner, new_request

logger = logging.getLogger("gatewayx.gateway")


cdef class OwnRequest(RequestOwner):
    """A request that the gateway makes itself, and takes the answer to."""

    cdef int made_for(self, Request client) except -1:
        self.asker_name = client.owner.asker(client)
        self.asker_hashed = client.owner.asker_hash(client)
        return 0

    cdef bytes asker(self, Request request):
        return self.asker_name

    cdef uint64_t asker_hash(self, Request request) except? 0:
        return self.asker_hashed

    cdef int submit(
        self, Common gateway, Exchange exchange, bytes path, bytes workload, int function_place, Request client
    ) except -1:
        cdef Request request = new_request()
        memcpy(request.id, client.id, sizeof(client.id))
        request.proxy_note = client.proxy_note
        request.method = METHOD_POST
        request.minor_version = 1
        request.path = path
        request.content_length = len(workload)
        request.set_body(workload)
        request.complete = True
        request.function_place = function_place
        request.token_place = client.token_place
        request.begun_ns = client.begun_ns
        request.owner = self
        request.context = exchange
        exchange.gateway = gateway
        exchange.request = request
        gateway.open_exchanges += 1
        self.request = request
        try:
            exchange.perform()
        except Exception:
            logger.exception("a request of the gateway's own failed")
            exchange.fail()
        return 0

    cdef int answered(self) except -1:
        # The request keeps its owner, which may be all that does.
        self.request.response = b""
        self.request = None
        return 0

    cdef int leave(self) except -1:
        cdef Request request = self.request
        self.request = None
        if request is not None:
            request.owner = None
            if request.context is not None:
                (<JobRequest> request.context).abandon()
        return 0
