"""The job servers behind this process: keep them connected, choose one for each job."""

from gatewayx.core.budget cimport ByteBudget
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.core.turns cimport Turn
from gatewayx.core.function_table cimport FunctionTable
from gatewayx.gearman.connection cimport JobServerConnection
from gatewayx.gearman.job cimport Job, JobListener, JobRouter, StatusListener, Submission
from gatewayx.gearman.pooled_server cimport PooledServer
from gatewayx.core.keyed_hash cimport KeyedHash

cdef enum:
    # So many jobs more than the others a server may have, while jobs of this loop turn are about to leave for it: those
    # that leave together cost one system call on either side.
    TURN_JOBS = 16
    # Background jobs with a client's unique that are remembered; above, the oldest is forgotten.
    MAX_KNOWN_BACKGROUNDS = 65536


cdef enum Balance:
    # The server with the fewest jobs outstanding; equals take turns.
    FEWEST
    # Each in turn.
    ROTATION
    # The first configured.
    IN_ORDER


cdef class BackgroundNote:
    """Background jobs of one identity at one job server, as far as this process knows."""
    cdef PooledServer server
    cdef bytes function
    # Submissions that were not settled yet.
    cdef int unsettled
    # One was accepted, or may have been; from which `status` on they may be seen to have ended.
    cdef bint queued
    cdef long long asked


cdef class Pool(JobRouter):
    cdef object loop
    cdef DeadlineWheel wheel
    cdef ByteBudget budget
    # PooledServer, in the order of the configuration, then of their addresses; and those that get no new jobs.
    cdef readonly list servers
    cdef list leaving
    # Numbers that no server has, the one that has been free for longest first.
    cdef object free_numbers
    # (name, entries of the roster) pairs, and the servers that they come to, as bits; any for a function that is not in
    # it.
    cdef list mapping
    cdef FunctionTable function_servers
    cdef Balance balance
    cdef bint cancel_abandoned
    cdef Py_ssize_t max_result_bytes
    # PooledServer to its Keeper, and what keepers need: the Upkeep is the same for all.
    cdef dict keepers
    cdef object upkeep
    cdef object resolver
    cdef object dialer
    # The configured job servers.
    cdef object roster
    # Connections that go down now are closed by us.
    cdef bint closing
    # Where the next search begins, so that equals take turns.
    cdef Py_ssize_t next_choice
    # The key of the hash that makes identities. No client knows it, so none can make the identity of another one's job.
    cdef bytes identity_key
    # Background jobs with a client's unique that are queued or on their way, as far as is known: identity to the
    # BackgroundNotes of it, one a job server, most often one.
    # An OrderedDict: a dict walks over what was deleted before its first entry, each time anew.
    cdef object known_backgrounds
    # Where connections write what was gathered in a turn of the loop.
    cdef Turn turn

    # None when no job server takes jobs now. A job with its own unique may be taken out of the queue once its listener
    # does not wait any more. identity: of the job, None if nothing is merged with it. workload: the object whose bytes the
    # submission's workload is; None if it is gone when this returns.
    cdef Job submit(
        self, JobListener listener, bytes function, bytes identity, Submission* submission, bytes workload
    )
    # The hash whose digest is the identity of a job with this function and unique; with the unique "-" once it has taken
    # the workload, if that is not empty: a job without one is merged with nothing.
    cdef KeyedHash start_identity(self, bytes function, bytes unique)
    # Of the unique "-": a hash of no more than what the job servers are ranked by.
    cdef bytes ranked_identity(self, bytes function, bytes unique, bytes workload)
    # A background job of that identity was submitted, and has not ended as far as is known.
    cdef bint knows_background(self, bytes identity, bytes function)
    # A job of that identity is under way here, or its end is still owed.
    cdef bint has_pinned(self, bytes identity)
    cdef int _note_background(self, Job job) except -1
    cdef int _forget_ended(self) except -1
    cdef PooledServer _server_of(self, JobServerConnection connection)
    # Ask a job server for the job with this unique, one of a gateway's own: GET_STATUS_UNIQUE knows no function. Over a
    # connection that carries no jobs. The listener may be told before this returns.
    cdef int ask_unique(self, PooledServer server, bytes unique, StatusListener listener) except -1
    # Have it take the background job with this handle and unique out of its queue, if it is still in the life in which it gave the
    # handle (JobCarrier.life), and then ask it for the unique. Returns None, or in words why it cannot be asked.
    cdef str cancel_background(
        self, PooledServer server, unsigned int life, bytes handle, bytes unique, StatusListener listener
    )
    # Every job server that the function may go to and that is up is known to have no worker for it.
    cdef bint lacks_workers(self, bytes function)
    # Fewest jobs queued of the function at one of these job servers; -1 when it is not known of one of them.
    cdef Py_ssize_t fewest_queued(self, bytes function)
    cdef int _serve(self, PooledServer server) except -1
    cdef int _map(self) except -1
    cdef unsigned long long _mapped(self, bytes function)
    cdef JobServerConnection _choose(self, bytes function, unsigned long long among)
    # For jobs that the job server may merge with others: the same function and unique go the same way, so that they
    # are merged, and each gets the whole result.
    cdef JobServerConnection _choose_pinned(
        self, bytes identity, unsigned long long rank_key, unsigned long long among
    )
