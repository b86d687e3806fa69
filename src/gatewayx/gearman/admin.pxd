"""The text protocol of a job server, on a connection of its own."""

cdef enum:
    # Cancellations that are sent or about to be and not answered; above, further ones are left out.
    MAX_PENDING_CANCELS = 16384


cdef class AdminConnection:
    cdef object loop
    cdef object transport
    # It has answered `version`.
    cdef readonly bint up
    cdef readonly bint closed
    # Why, in a line; None while it is open.
    cdef readonly str close_reason
    # Futures for who keeps the connection: done when it comes up, and when it is gone.
    cdef readonly object came_up
    cdef readonly object gone
    # Handles whose cancellation leaves with this loop turn.
    cdef list handles
    # Commands whose one-line answer has not come.
    cdef readonly Py_ssize_t unanswered
    cdef readonly unsigned long long cancels_requested
    # For want of room.
    cdef readonly unsigned long long cancels_left_out

    # Ask that the job be taken out of the queue; gearmand's answer tells nothing, so none is awaited.
    cdef int cancel(self, bytes handle) except -1
    cdef int _close(self, str reason) except -1


cdef class AdminSlot:
    """The text connection to one job server that is up; None while none is."""
    cdef AdminConnection current
