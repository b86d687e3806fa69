"""The job servers behind this process.

gearmand does not cluster: each job server is on its own, and a job goes to one of them. Each configured connection is
kept by a Task that connects, waits until it is lost, and comes back after a pause: exponential back-off with full
jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), so that gateways do not return all at once.
"""

import asyncio
import logging
import random

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.budget cimport ByteBudget
from gatewayx.deadlines cimport DeadlineWheel
from gatewayx.gearman.admin cimport AdminConnection, AdminSlot
from gatewayx.gearman.connection cimport Job, JobListener, JobServerConnection
from gatewayx.gearman.packet cimport PacketType

logger = logging.getLogger("gatewayx.gearman")

# A start waits this long for each job server's first answer.
FIRST_ATTEMPT_S = 1.0
# An attempt that has not led to an answered OPTION_REQ is given up.
CONNECT_TIMEOUT_S = 5.0
# Of a workload by which a job is pinned; equal ones still go the same way.
MAX_HASHED_BYTES = 4096
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0


@cython.final
cdef class PooledServer:
    """One job server at host:port."""

    def __init__(self, str host, int port):
        self.host = host
        self.port = port
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.name_hash = _hash(0, self.name.encode())
        self.connections = []
        self.admin_slot = AdminSlot()

    @property
    def connected(self):
        """How many connections to it are up."""
        return len(self.connections)

    cdef Py_ssize_t outstanding(self):
        cdef Py_ssize_t total = 0
        for connection in self.connections:
            total += (<JobServerConnection> connection).outstanding
        return total

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

    cdef JobServerConnection pinned(self, unsigned long long key):
        cdef JobServerConnection connection, best = None
        cdef unsigned long long rank, highest = 0
        for item in self.connections:
            connection = <JobServerConnection> item
            rank = _mixed(key + <unsigned long long> connection.slot)
            if connection.accepts_jobs() and (best is None or rank > highest):
                best = connection
                highest = rank
        return best


@cython.final
cdef class Pool:
    """Connections to all job servers.

    loop: the event loop. wheel: where the jobs' deadlines hang. addresses: (host, port) of each job server.
    connections_per_server: 1 or more. max_result_bytes: most bytes of one job's result. budget: where packets and
    results are counted; without one they have a budget of their own.
    """

    def __init__(
        self,
        loop,
        DeadlineWheel wheel,
        addresses,
        *,
        int connections_per_server,
        Py_ssize_t max_result_bytes,
        ByteBudget budget=None,
    ):
        self.loop = loop
        self.wheel = wheel
        self.budget = ByteBudget() if budget is None else budget
        self.servers = [PooledServer(host, port) for host, port in addresses]
        self.connections_per_server = connections_per_server
        self.max_result_bytes = max_result_bytes
        self.keepers = []

    async def start(self):
        """Begin to connect; returns once every job server was tried: connected, refused, or 1 s gone."""
        tried = []
        for server in self.servers:
            tried.append(self._keep(server, self._admin_connection))
            for slot in range(self.connections_per_server):
                tried.append(self._keep(server, self._job_connection, slot))
        await asyncio.wait(tried, timeout=FIRST_ATTEMPT_S)
        for server in self.servers:
            if not server.connected:
                self._tell_down(server, "no connection yet")

    async def close(self):
        """Close every connection; jobs that have not ended are lost."""
        self.closing = True
        for keeper in self.keepers:
            keeper.cancel()
        await asyncio.gather(*self.keepers, return_exceptions=True)
        self.keepers.clear()

    def counters(self):
        """What is held now and was counted since the start, by name."""
        cdef JobServerConnection connection
        cdef dict totals = {"connections": 0, "outstanding_jobs": 0, "abandoned_jobs": 0, "unsent_bytes": 0}
        totals["dropped_packets"] = self.dropped_packets_before
        totals["cancels_requested"] = self.cancels_requested_before
        for server in self.servers:
            if (<PooledServer> server).admin_slot.current is not None:
                totals["cancels_requested"] += (<PooledServer> server).admin_slot.current.cancels_requested
            for item in (<PooledServer> server).connections:
                connection = <JobServerConnection> item
                totals["connections"] += 1
                totals["outstanding_jobs"] += connection.outstanding
                totals["abandoned_jobs"] += connection.abandoned_jobs
                totals["unsent_bytes"] += connection.unsent_bytes
                totals["dropped_packets"] += connection.dropped_packets
        return totals

    cdef Job submit(
        self,
        JobListener listener,
        int packet_type,
        bytes function,
        bytes unique,
        bytes workload,
        double timeout_s,
        bint cancellable,
    ):
        cdef Job job
        cdef JobServerConnection connection
        if cancellable:
            connection = self.choose()
        else:
            connection = self.choose_pinned(function, unique, workload)
        if connection is None:
            return None
        job = Job.__new__(Job)
        job.listener = listener
        job.background = (
            packet_type == PacketType.SUBMIT_JOB_BG
            or packet_type == PacketType.SUBMIT_JOB_HIGH_BG
            or packet_type == PacketType.SUBMIT_JOB_LOW_BG
        )
        job.cancellable = cancellable and not job.background
        connection.submit(job, packet_type, function, unique, workload)
        self.wheel.arm(job, timeout_s)
        return job

    cdef JobServerConnection choose(self):
        """The least loaded connection of the server with the fewest jobs outstanding; equals take turns."""
        cdef Py_ssize_t count = len(self.servers)
        cdef Py_ssize_t index, outstanding, fewest = 0
        cdef PooledServer server
        cdef JobServerConnection connection, best = None
        for index in range(count):
            server = <PooledServer> self.servers[(self.turn + index) % count]
            outstanding = server.outstanding()
            if best is not None and outstanding >= fewest:
                continue
            connection = server.least_loaded()
            if connection is not None:
                best = connection
                fewest = outstanding
        self.turn = (self.turn + 1) % count
        return best

    cdef JobServerConnection choose_pinned(self, bytes function, bytes unique, bytes workload):
        """The first by rank of the servers that take jobs (rendezvous hashing, Thaler and Ravishankar, 1996).

        The hash is fixed, so every process and every gateway with the same server names ranks them alike.
        """
        cdef unsigned long long key = _hash(_hash(0, function) + 1, unique)
        cdef unsigned long long rank, highest = 0
        cdef JobServerConnection connection, best = None
        if unique == b"-":
            if not workload:
                return self.choose()
            key = _hash(key + <unsigned long long> len(workload), workload[:MAX_HASHED_BYTES])
        for server in self.servers:
            rank = _mixed(key ^ (<PooledServer> server).name_hash)
            if best is None or rank > highest:
                connection = (<PooledServer> server).pinned(key)
                if connection is not None:
                    best = connection
                    highest = rank
        return best

    def _keep(self, PooledServer server, make_connection, int slot=0):
        """Keep one connection to the server; the future is done after the first attempt."""
        tried = self.loop.create_future()
        self.keepers.append(self.loop.create_task(self._keep_connected(server, make_connection, slot, tried)))
        return tried

    def _job_connection(self, PooledServer server, int slot):
        return JobServerConnection(
            self.loop, self.wheel, server.admin_slot, self.budget, server.name, slot, self.max_result_bytes
        )

    def _admin_connection(self, PooledServer server, int slot):
        return AdminConnection(self.loop)

    async def _keep_connected(self, PooledServer server, make_connection, int slot, tried):
        backoff_s = BACKOFF_FIRST_S
        while not self.closing:
            connection = make_connection(server, slot)
            try:
                await asyncio.wait_for(self._connect(server, connection), CONNECT_TIMEOUT_S)
                if self.closing:
                    # wait_for() may swallow a cancellation that meets its end (bpo-37658).
                    return
                backoff_s = BACKOFF_FIRST_S
                self._came_up(server, connection)
                if not tried.done():
                    tried.set_result(None)
                await connection.gone
            except (OSError, UnicodeError, asyncio.TimeoutError) as error:
                connection.close(str(error) or f"no answer within {CONNECT_TIMEOUT_S:g} s")
            except Exception:
                logger.exception("an attempt to connect to job server %s failed", server.name)
            finally:
                connection.close("the gateway is stopping")
                self._went_down(server, connection)
                if not tried.done():
                    tried.set_result(None)
            await asyncio.sleep(random.uniform(0, backoff_s))
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def _connect(self, PooledServer server, connection):
        await self.loop.create_connection(lambda: connection, server.host, server.port)
        await asyncio.wait((connection.came_up, connection.gone), return_when=asyncio.FIRST_COMPLETED)
        if not connection.up:
            raise ConnectionResetError(connection.close_reason)

    def _came_up(self, PooledServer server, connection):
        if isinstance(connection, AdminConnection):
            server.admin_slot.current = connection
            return
        if not server.connections:
            logger.info("job server %s is connected", server.name)
            server.told_down = False
        server.connections.append(connection)

    def _went_down(self, PooledServer server, connection):
        if isinstance(connection, AdminConnection):
            self.cancels_requested_before += (<AdminConnection> connection).cancels_requested
            server.admin_slot.current = None
            return
        self.dropped_packets_before += (<JobServerConnection> connection).dropped_packets
        if connection in server.connections:
            server.connections.remove(connection)
        if not server.connections and not self.closing:
            self._tell_down(server, connection.close_reason)

    def _tell_down(self, PooledServer server, reason):
        if not server.told_down:
            server.told_down = True
            logger.warning("job server %s is not connected, trying again: %s", server.name, reason)


cdef unsigned long long _hash(unsigned long long seed, bytes text) noexcept:
    """FNV-1a of 64 bits, from an offset basis that differs by seed."""
    cdef unsigned long long state = 0xCBF29CE484222325 ^ seed
    cdef const unsigned char* byte = <const unsigned char*> PyBytes_AS_STRING(text)
    cdef Py_ssize_t index
    for index in range(PyBytes_GET_SIZE(text)):
        state = (state ^ byte[index]) * <unsigned long long> 0x100000001B3
    return state


cdef unsigned long long _mixed(unsigned long long state) noexcept:
    """The finalizer of splitmix64: keys that differ in a bit rank alike by chance only."""
    state = (state ^ (state >> 30)) * <unsigned long long> 0xBF58476D1CE4E5B9
    state = (state ^ (state >> 27)) * <unsigned long long> 0x94D049BB133111EB
    return state ^ (state >> 31)
