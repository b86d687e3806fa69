"""One job server and the connections to it that are up."""

cimport cython

from gatewayx.gearman.admin cimport ServerStatus
from gatewayx.gearman.connection cimport JobServerConnection
from gatewayx.gearman.ranking cimport hash_of, mixed
from gatewayx.gearman.upstream cimport UpstreamState

from gatewayx.address import ServerAddress


@cython.final
cdef class PooledServer:
    """One job server at host:port.

    number: which one it is, from 0. entry: which of the roster it belongs to. tls_name: what its certificate
    must be good for, if not for its host.
    """

    def __init__(self, int number, int entry, str host, int port, bint tls=False, tls_name=None):
        self.number = number
        self.bit = <unsigned long long> 1 << number
        self.entry = entry
        self.host = host
        self.port = port
        self.tls = tls
        # Without the zone, which other machines do not know, and without the dot that ends a full name.
        self.tls_name = (host if tls_name is None else tls_name).partition("%")[0].removesuffix(".")
        self.name = str(ServerAddress(host, port, tls))
        self.name_hash = hash_of(0, self.name.encode())
        self.order = (entry,)
        self.connections = []
        self.status = ServerStatus()

    @property
    def connected(self):
        """How many connections to it are up."""
        return len(self.connections)

    @property
    def peers(self):
        """The other sides of the connections for jobs that are up, a set."""
        return {connection.peer for connection in self.connections if connection.up}

    @property
    def outstanding_jobs(self):
        """Jobs whose end somebody waits for."""
        return self.outstanding()

    cdef bint is_up(self):
        for connection in self.connections:
            if (<JobServerConnection> connection).is_up():
                return True
        return False

    cdef Py_ssize_t outstanding(self):
        cdef Py_ssize_t total = 0
        for connection in self.connections:
            total += (<JobServerConnection> connection).outstanding
        return total

    cdef bint has_open_write(self):
        for connection in self.connections:
            if (<JobServerConnection> connection).has_open_write():
                return True
        return False

    cdef JobServerConnection least_loaded(self):
        cdef JobServerConnection connection, best = None
        for item in self.connections:
            connection = <JobServerConnection> item
            if not connection.accepts_jobs():
                continue
            if connection.has_open_write():
                return connection
            if best is None or connection.outstanding < best.outstanding:
                best = connection
        return best

    cdef JobServerConnection pinned(self, bytes identity, unsigned long long rank_key):
        cdef JobServerConnection connection, best = None
        cdef unsigned long long rank, highest = 0
        for item in self.connections:
            connection = <JobServerConnection> item
            if not connection.is_up():
                continue
            if connection.has_pin(identity):
                best = connection
                break
            if connection.state == UpstreamState.RETIRED:
                continue
            rank = mixed(rank_key + <unsigned long long> connection.number)
            if best is None or rank > highest:
                best = connection
                highest = rank
        return best if best is not None and best.has_room() else None
