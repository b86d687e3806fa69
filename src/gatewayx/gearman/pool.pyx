"""The job servers behind this process.

gearmand does not cluster: each job server is on its own, and a job goes to one of them. A Keeper keeps the connections
to each. The Roster has the configured ones, which come and go with the settings, those of a name with `each://` by
themselves.

A job server has a number, whose bit stands for it in Job.refused_by and in the table of functions. One that leaves keeps
its number until its jobs have ended; the next one gets it only when no job that may still move has its bit.

Which one gets a job: of those that its function is mapped to and that are up, for a pinned job the first by rank that
takes it; else one that has workers for the function, else one of which that is not known, else any; of equals by the
balance. A job that was queued nowhere, since its connection ended before it was written or the job server's queue is
full, goes to the next one in the same way (`move`).
"""

import asyncio
import os
from collections import OrderedDict, deque

cimport cython

from gatewayx.core.budget cimport ByteBudget
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.core.turns cimport Turn
from gatewayx.core.function_table cimport FunctionTable
from gatewayx.gearman.admin cimport AdminConnection
from gatewayx.gearman.connection cimport JobServerConnection
from gatewayx.gearman.job cimport Job, JobListener, JobRouter, StatusListener, Submission, make_packet
from gatewayx.gearman.packet cimport is_background
from gatewayx.gearman.pooled_server cimport PooledServer
from gatewayx.gearman.ranking cimport mixed, rank_key_of
from gatewayx.gearman.status_connection cimport StatusAsker
from gatewayx.core.keyed_hash cimport KEY_BYTES, KeyedHash

from gatewayx.address import ServerAddress
from gatewayx.gearman.keeper import Keeper, Upkeep
from gatewayx.gearman.roster import MOST_SERVERS, Roster
from gatewayx.net.names import Resolver

BALANCES = {"fewest": FEWEST, "rotation": ROTATION, "in-order": IN_ORDER}

cdef unsigned long long ALL_SERVERS = 0xFFFFFFFFFFFFFFFF


@cython.final
cdef class BackgroundNote:
    """Background jobs of one identity at one job server, as far as this process knows."""


@cython.final
cdef class Pool(JobRouter):
    """Connections to all job servers.

    loop: the event loop. wheel: where the jobs' deadlines hang. servers: the ServerAddress, or its fields, of each
    configured job server, 1 to 64. max_result_bytes: most bytes of one job's result. budget: where packets and results are
    counted; without one they have a budget of their own. turn: where connections write what was gathered in a turn of the
    loop; without one they have one of their own. balance: one of BALANCES. function_servers: (name, which of the servers)
    pairs, the name as in FunctionTable. cancel_abandoned: ask the job server to drop jobs that nobody waits for.
    identity_key: of the hashes of what jobs are merged by, KEY_BYTES; without one it is made here. resolver:
    finds the addresses of names; without one they have one of their own. dialer: makes the connections. upkeep: the
    arguments of Upkeep.
    """

    def __init__(
        self,
        loop,
        DeadlineWheel wheel,
        servers,
        *,
        Py_ssize_t max_result_bytes,
        ByteBudget budget=None,
        Turn turn=None,
        str balance="fewest",
        function_servers=(),
        bint cancel_abandoned=True,
        bytes identity_key=None,
        resolver=None,
        dialer,
        **upkeep,
    ):
        self.loop = loop
        self.wheel = wheel
        self.budget = ByteBudget() if budget is None else budget
        self.turn = Turn(loop) if turn is None else turn
        self.balance = BALANCES[balance]
        self.cancel_abandoned = cancel_abandoned
        self.max_result_bytes = max_result_bytes
        self.resolver = Resolver(loop) if resolver is None else resolver
        self.dialer = dialer
        self.upkeep = Upkeep(**upkeep)
        self.identity_key = os.urandom(KEY_BYTES) if identity_key is None else identity_key
        self.known_backgrounds = OrderedDict()
        self.mapping = list(function_servers)
        self.servers = []
        self.leaving = []
        self.keepers = {}
        self.free_numbers = deque(range(MOST_SERVERS))
        self._map()
        self.roster = Roster(loop, self, self.resolver, dialer, [ServerAddress(*server) for server in servers])

    async def start(self):
        """Begin to connect; returns once every job server was tried: connected, refused, or 1 s gone."""
        await self.roster.start()

    @property
    def is_closing(self):
        """Whether its connections are closed."""
        return self.closing

    async def close(self):
        """Close every connection; jobs that have not ended are lost."""
        self.closing = True
        # The roster first: it makes keepers.
        await self.roster.close()
        await asyncio.gather(*[keeper.close() for keeper in self.keepers.values()])

    async def change(
        self,
        servers,
        *,
        Py_ssize_t max_result_bytes,
        str balance,
        function_servers,
        bint cancel_abandoned,
        **upkeep,
    ):
        """Be as if it had been made with these, but for the jobs under way, which stay where they are.

        Connections that are up keep the TLS that they have. Returns once job servers that are new were tried, as
        start() does; only then do those leave that are no more, and functions go to others.
        """
        self.balance = BALANCES[balance]
        self.cancel_abandoned = cancel_abandoned
        self.max_result_bytes = max_result_bytes
        for server in self.servers + self.leaving:
            for connection in (<PooledServer> server).connections:
                (<JobServerConnection> connection).bound_results(max_result_bytes)
        if self.upkeep.change(**upkeep):
            for keeper in self.keepers.values():
                keeper.adjust()
        await self.roster.change([ServerAddress(*server) for server in servers], list(function_servers))

    def change_tls(self, context):
        """Use this TLS context for connections from now on; those that are waited for are tried at once."""
        self.upkeep.tls_context = context
        for server, keeper in self.keepers.items():
            if (<PooledServer> server).tls:
                keeper.try_again()

    # Job servers that come and go.

    def admit(self, int entry, tuple order, str host, int port, bint tls, tls_name):
        """A job server of this entry of the roster, which is sorted by `order`; None while no number is free."""
        number = self._take_number()
        if number is None:
            return None
        cdef PooledServer server = PooledServer(number, entry, host, port, tls, tls_name)
        server.order = order
        keeper = Keeper(self.loop, self, self.resolver, self.dialer, server, self.upkeep)
        server.asker = StatusAsker(self.loop, self.turn, server.status, keeper.keep_asking)
        self.keepers[server] = keeper
        self._serve(server)
        return server

    def _take_number(self):
        """A number that no job knows, the one that has been free for longest; None without any."""
        cdef unsigned long long known = 0
        for server in self.servers + self.leaving:
            for connection in (<PooledServer> server).connections:
                known |= (<JobServerConnection> connection).refusals()
        for number in self.free_numbers:
            if not known >> <int> number & 1:
                self.free_numbers.remove(number)
                return number
        return None

    def place(self, PooledServer server, tuple order):
        """Sort the server by something else."""
        server.order = order
        self.servers.sort(key=_order)

    def map_functions(self, list mapping):
        """Jobs go where the (name, entries of the roster) pairs say from now on."""
        self.mapping = mapping
        self._map()

    def keeper(self, server):
        """The Keeper of the connections to the server."""
        return self.keepers[server]

    def retire(self, server):
        """The server gets no new jobs from now on; those that it has go on."""
        self.servers.remove(server)
        self.leaving.append(server)
        self._map()

    def readmit(self, server):
        """Undo retire()."""
        self.leaving.remove(server)
        self._serve(server)

    def drop(self, PooledServer server):
        """A server that was retired has no connection any more: its number is free."""
        self.leaving.remove(server)
        del self.keepers[server]
        server.dropped = True
        self.free_numbers.append(server.number)

    cdef int _serve(self, PooledServer server) except -1:
        """Let it have jobs."""
        self.servers.append(server)
        self.servers.sort(key=_order)
        return self._map()

    cdef int _map(self) except -1:
        """Make the table of functions again, from the job servers that there are now."""
        bits = {}
        for server in self.servers:
            bits[server.entry] = bits.get(server.entry, 0) | (<PooledServer> server).bit
        self.function_servers = FunctionTable(
            [(name, sum([bits.get(entry, 0) for entry in entries])) for name, entries in self.mapping]
        )
        return 0

    def counters(self):
        """What is held now and was counted since the start, by name."""
        cdef JobServerConnection connection
        cdef dict totals = {"connections": 0, "outstanding_jobs": 0, "abandoned_jobs": 0, "unsent_bytes": 0}
        totals["dropped_packets"] = self.budget.counts.dropped_packets
        totals["cancels_requested"] = self.budget.counts.cancels_requested
        totals["moved_jobs"] = self.budget.counts.moved_jobs
        totals["known_backgrounds"] = len(self.known_backgrounds)
        totals["pins"] = 0
        for server in self.servers + self.leaving:
            for item in (<PooledServer> server).connections:
                connection = <JobServerConnection> item
                totals["connections"] += 1
                totals["outstanding_jobs"] += connection.outstanding
                totals["abandoned_jobs"] += len(connection.table.abandoned)
                totals["unsent_bytes"] += connection.unsent_bytes
                totals["pins"] += len(connection.table.pins)
        return totals

    def servers_now(self):
        """Of each job server, by name: how many connections are up, and how many jobs are outstanding there.

        One that is an address of several configured ones counts as one.
        """
        found = {}
        for server in self.servers + self.leaving:
            now = found.setdefault(server.name, {"connections": 0, "outstanding_jobs": 0})
            now["connections"] += server.connected
            now["outstanding_jobs"] += server.outstanding_jobs
        return found

    cdef Job submit(
        self,
        JobListener listener,
        bytes function,
        bytes identity,
        Submission* submission,
        bytes workload,
    ):
        cdef Job job
        cdef JobServerConnection connection
        cdef unsigned long long among = self._mapped(function)
        if identity is not None:
            connection = self._choose_pinned(identity, submission.rank_key, among)
        else:
            connection = self._choose(function, among)
        if connection is None:
            return None
        job = Job.__new__(Job)
        job.listener = listener
        job.background = is_background(submission.packet_type)
        job.cancellable = submission.own_unique and not job.background and self.cancel_abandoned
        job.identity = identity
        job.rank_key = submission.rank_key
        job.remembered = submission.remembered
        job.streamed = submission.streamed
        make_packet(job, self.budget, function, submission, workload)
        connection.submit(job)
        if job.remembered:
            self._note_background(job)
        self.wheel.arm(job, submission.timeout_s)
        return job

    cdef bint move(self, Job job) except -1:
        cdef JobServerConnection connection
        cdef unsigned long long among = self._mapped(job.function) & ~job.refused_by
        if self.closing:
            return False
        if job.identity is not None:
            connection = self._choose_pinned(job.identity, job.rank_key, among)
        else:
            connection = self._choose(job.function, among)
        if connection is None:
            return False
        self.budget.counts.moved_jobs += 1
        connection.submit(job)
        if job.remembered:
            self._note_background(job)
        return True

    cdef int _note_background(self, Job job) except -1:
        """The job is on its way to a job server: it counts there until it is known not to be queued, or to have ended."""
        cdef BackgroundNote note
        cdef PooledServer server = self._server_of(<JobServerConnection> job.carrier)
        # As if it were new: it is forgotten last.
        cdef list notes = self.known_backgrounds.pop(job.identity, None)
        self.known_backgrounds[job.identity] = notes = [] if notes is None else notes
        if len(self.known_backgrounds) > MAX_KNOWN_BACKGROUNDS:
            del self.known_backgrounds[next(iter(self.known_backgrounds))]
        for note in notes:
            if note.server is server:
                break
        else:
            note = BackgroundNote.__new__(BackgroundNote)
            note.server = server
            note.function = job.function
            notes.append(note)
        note.unsettled += 1
        job.background_note = note
        return self._forget_ended()

    cdef int _forget_ended(self) except -1:
        """Forget the oldest background jobs that have ended: twice as many as come, or they would pile up to the bound."""
        cdef BackgroundNote note
        for _ in range(2):
            identity = next(iter(self.known_backgrounds))
            note = <BackgroundNote> self.known_backgrounds[identity][0]
            if self.knows_background(identity, note.function):
                return 0
        return 0

    cdef PooledServer _server_of(self, JobServerConnection connection):
        for server in self.servers + self.leaving:
            if (<PooledServer> server).bit == connection.server_bit:
                return <PooledServer> server
        raise AssertionError("a connection to none of the job servers")

    cdef int background_settled(self, Job job, bint queued) except -1:
        cdef BackgroundNote note = <BackgroundNote> job.background_note
        cdef list notes = self.known_backgrounds.get(job.identity)
        job.background_note = None
        note.unsettled -= 1
        if queued:
            note.queued = True
            note.asked = note.server.status.asked
        elif note.unsettled == 0 and not note.queued and notes is not None and note in notes:
            notes.remove(note)
            if not notes:
                del self.known_backgrounds[job.identity]
        return 0

    cdef bytes ranked_identity(self, bytes function, bytes unique, bytes workload):
        cdef unsigned long long rank_key = rank_key_of(function, unique, workload)
        cdef KeyedHash identity = KeyedHash(self.identity_key)
        identity.take(<const char*> &rank_key, sizeof(rank_key))
        return identity.digest()

    cdef KeyedHash start_identity(self, bytes function, bytes unique):
        cdef KeyedHash identity = KeyedHash(self.identity_key)
        # The NUL behind each keeps two pairs apart: neither a function nor a unique may hold one.
        identity.update(function)
        identity.update(b"\0")
        identity.update(unique)
        identity.update(b"\0")
        return identity

    cdef bint knows_background(self, bytes identity, bytes function):
        cdef BackgroundNote note
        cdef list notes = self.known_backgrounds.get(identity)
        if notes is None:
            return False
        for note in list(notes):
            # What a job server that has left still does is out of sight, and nothing is merged with it any more.
            if note.server.dropped or (
                note.unsettled == 0 and note.server.status.has_ended(function, note.asked)
            ):
                notes.remove(note)
        if not notes:
            del self.known_backgrounds[identity]
        return bool(notes)

    cdef bint has_pinned(self, bytes identity):
        for server in self.servers + self.leaving:
            for connection in (<PooledServer> server).connections:
                if (<JobServerConnection> connection).has_pin(identity):
                    return True
        return False

    cdef int ask_unique(self, PooledServer server, bytes unique, StatusListener listener) except -1:
        return server.asker.ask(unique, listener)

    cdef str cancel_background(
        self, PooledServer server, unsigned int life, bytes handle, bytes unique, StatusListener listener
    ):
        return server.asker.cancel(life, handle, unique, listener)

    cdef bint lacks_workers(self, bytes function):
        cdef PooledServer server
        cdef unsigned long long among = self._mapped(function)
        cdef bint found = False
        for item in self.servers:
            server = <PooledServer> item
            if among & server.bit and server.is_up():
                if server.status.workers(function) != 0:
                    return False
                found = True
        return found

    cdef Py_ssize_t fewest_queued(self, bytes function):
        cdef PooledServer server
        cdef unsigned long long among = self._mapped(function)
        cdef Py_ssize_t queued, fewest = -1
        for item in self.servers:
            server = <PooledServer> item
            if among & server.bit and server.is_up():
                queued = server.status.queued(function)
                if queued < 0:
                    return -1
                if fewest < 0 or queued < fewest:
                    fewest = queued
        return fewest

    cdef unsigned long long _mapped(self, bytes function):
        if self.function_servers.empty:
            return ALL_SERVERS
        servers = self.function_servers.find(function)
        return ALL_SERVERS if servers is None else <unsigned long long> servers

    cdef JobServerConnection _choose(self, bytes function, unsigned long long among):
        cdef Py_ssize_t count = len(self.servers)
        cdef Py_ssize_t index, number, workers, outstanding, fewest = 0
        cdef Py_ssize_t chosen = self.next_choice
        # 2: it has workers, 1: that is not known, 0: it has none.
        cdef int grade, highest = -1
        cdef PooledServer server
        cdef JobServerConnection connection, best = None
        if count == 0:
            # No address of any name is known.
            return None
        if count == 1:
            server = <PooledServer> self.servers[0]
            return server.least_loaded() if among & server.bit else None
        for index in range(count):
            number = index if self.balance == IN_ORDER else (self.next_choice + index) % count
            server = <PooledServer> self.servers[number]
            if not among & server.bit or not server.connections:
                continue
            workers = server.status.workers(function)
            grade = 2 if workers > 0 else 1 if workers < 0 else 0
            outstanding = 0
            if self.balance == FEWEST:
                outstanding = server.outstanding()
                if server.has_open_write():
                    outstanding -= TURN_JOBS
            if grade < highest or (grade == highest and outstanding >= fewest):
                continue
            connection = server.least_loaded()
            if connection is not None:
                best = connection
                chosen = number
                highest = grade
                fewest = outstanding
        self.next_choice = (chosen + 1) % count
        return best

    cdef JobServerConnection _choose_pinned(
        self, bytes identity, unsigned long long rank_key, unsigned long long among
    ):
        """The first by rank of the servers that take jobs (rendezvous hashing, Thaler and Ravishankar, 1996).

        The hash is fixed, so every process and every gateway with the same server names ranks them alike.
        """
        cdef unsigned long long rank, highest = 0
        cdef PooledServer server
        cdef JobServerConnection connection, best = None
        for item in self.servers:
            server = <PooledServer> item
            if not among & server.bit:
                continue
            rank = mixed(rank_key ^ server.name_hash)
            if best is None or rank > highest:
                connection = server.pinned(identity, rank_key)
                if connection is not None:
                    best = connection
                    highest = rank
        return best

    # What the keepers ask for and tell.

    def job_connection(self, PooledServer server, int number):
        """A new connection to the server, which is to be connected."""
        return JobServerConnection(
            self.loop,
            self.turn,
            self.wheel,
            self,
            server.status,
            self.budget,
            server.name,
            server.number,
            number,
            self.max_result_bytes,
        )

    def admin_connection(self, PooledServer server):
        """A new text connection to the server, which is to be connected."""
        return AdminConnection(self.loop, self.turn, server.status, self.budget.counted_in)

    def came_up(self, PooledServer server, connection):
        """One of its connections has come up."""
        if isinstance(connection, AdminConnection):
            server.status.connection = connection
        else:
            server.connections.append(connection)
            # The bound may have changed since it was made.
            connection.bound_results(self.max_result_bytes)

    def went_down(self, PooledServer server, connection):
        """A connection that had come up is gone."""
        if isinstance(connection, AdminConnection):
            server.status.connection = None
            return
        if connection in server.connections:
            server.connections.remove(connection)


def _order(PooledServer server):
    return server.order
