"""One job server and the connections to it that are up."""

from gatewayx.gearman.admin cimport ServerStatus
from gatewayx.gearman.connection cimport JobServerConnection
from gatewayx.gearman.status_connection cimport StatusAsker


cdef class PooledServer:
    """One job server and the connections to it that are up."""
    cdef readonly str host
    cdef readonly int port
    cdef readonly bint tls
    # What its certificate must be good for.
    cdef readonly str tls_name
    # "host:port" or "tls://host:port", the host as configured, or the address of a name with each://: for messages, and
    # to rank it by.
    cdef readonly str name
    # Hash of the name.
    cdef readonly unsigned long long name_hash
    # Which one it is, from 0, and its bit.
    cdef readonly int number
    cdef unsigned long long bit
    # The entry of the roster that it is or belongs to, and by what they are sorted: which of the configured ones that is,
    # then the address.
    cdef readonly int entry
    cdef tuple order
    # It has left for good.
    cdef bint dropped
    cdef list connections
    # The text connection, and what it has told.
    cdef readonly ServerStatus status

    # Asks it for jobs by their unique.
    cdef StatusAsker asker

    # One of its connections is up.
    cdef bint is_up(self)
    # Jobs whose end somebody waits for, over all its connections.
    cdef Py_ssize_t outstanding(self)
    # Jobs of this loop turn are about to leave for it, and one more fits into their write.
    cdef bint has_open_write(self)
    # The connection over which this loop turn's jobs leave, or the one with the fewest jobs outstanding; None if none
    # takes another one.
    cdef JobServerConnection least_loaded(self)
    # The connection over which jobs of the identity are under way, or else the same one for the same rank key as long as
    # the same ones are up; None if that one takes no job.
    cdef JobServerConnection pinned(self, bytes identity, unsigned long long rank_key)
