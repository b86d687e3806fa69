"""Idempotency keys: what came of the first request with each."""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.shared cimport Shared
from gatewayx.gateway.kept_jobs cimport KeptJobs
from gatewayx.gateway.kept_room cimport KeptAnswer, KeptRoom

cdef enum:
    # Keys whose time is over that are forgotten in one tick.
    MOST_FORGOTTEN = 4096


cdef class KeyRecord(KeptAnswer):
    """A key: the answer of its first request, or who waits for that."""
    # Of the key, and of the request (Keys).
    cdef bytes hashed
    cdef bytes fingerprint
    # What has ended it left nothing at any job server: the key is free again.
    cdef bint is_released
    # Its answer is here: it never changes any more, but for a body that is dropped.
    cdef bint has_ended
    # By time.monotonic(): when it ended, or was last looked at while its job went on.
    cdef double ended_s
    # The id of the kept job that its answer tells of, which may not have ended; None for none. The job itself would be held, with its
    # result, after all others have forgotten it.
    cdef bytes job_id


cdef class Keys:
    cdef KeptRoom room
    cdef KeptJobs kept
    # Where the keys of all processes together are bounded.
    cdef Shared shared
    cdef Counters counted_in
    cdef Counts* counts
    # All processes hash keys alike with this.
    cdef bytes hash_key
    # How long a key is known after its job's end, and how many there may be.
    cdef double ttl_s
    cdef Py_ssize_t max_keys
    # KeyRecords by the hashes of their keys: at most max_keys; and those that have ended, the oldest first: an OrderedDict.
    cdef dict records
    cdef object ended
    # Of those that have not ended.
    cdef Py_ssize_t running
    # An asyncio.Event: there are none.
    cdef readonly object all_ended

    # By what a key is known, which is its client's own: token_mark, None without a token.
    cdef bytes hashed(self, bytes key, bytes token_mark)
    # None where nothing is known of it.
    cdef KeyRecord find(self, bytes hashed)
    # A new one, which counts; None if there may be no further one.
    cdef KeyRecord begin(self, bytes hashed, bytes fingerprint)
    # Its answer is here: all who wait are told, and it is kept, unless it says that nothing was submitted.
    cdef int end(self, KeyRecord record) except -1
    cdef int _forget(self, KeyRecord record) except -1
