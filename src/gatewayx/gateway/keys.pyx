"""Idempotency keys: what came of the first request with each (draft-ietf-httpapi-idempotency-key-header-07).

Theory of operation. A KeyRecord is made before anything is submitted, and the job runs for it, as the request of a client that never
hangs up (gateway/keyed_exchange): whoever asks with the key waits for the record, and may leave and come
again. An answer which says that nothing was submitted is given to all who wait, and the key is free. Any other is kept for ttl_s. Its
body may have to make room for others; that the job has run is never forgotten before its time, or a retry would run it again.

The draft wants a retry to be told from another request with the same key: the record knows the first one's fingerprint.
"""

import asyncio
import time
from collections import OrderedDict

cimport cython

from gatewayx.core.counters cimport Counters
from gatewayx.core.keyed_hash cimport KeyedHash
from gatewayx.core.shared cimport KEPT_KEYS, Shared
from gatewayx.gateway.job_request cimport MARK_BYTES
from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.kept_jobs cimport KeptJobs
from gatewayx.gateway.kept_room cimport KeptAnswer, KeptRoom

# In the place of a token's mark where there is none; no token has it, as no text has such a hash.
cdef bytes NO_MARK = bytes(MARK_BYTES)


@cython.final
cdef class KeyRecord(KeptAnswer):
    """A key: the answer of its first request, or who waits for that."""


@cython.final
cdef class Keys:
    """The idempotency keys that a process owns; the .pyi says what it is made of."""

    def __init__(
        self,
        KeptRoom room not None,
        KeptJobs kept not None,
        Shared shared not None,
        Counters counters not None,
        bytes hash_key not None,
        *,
        double ttl_s,
        Py_ssize_t max_keys,
    ):
        self.room = room
        self.kept = kept
        self.shared = shared
        self.counted_in = counters
        self.counts = counters.row
        self.hash_key = hash_key
        self.records = {}
        self.ended = OrderedDict()
        self.all_ended = asyncio.Event()
        self.all_ended.set()
        self.change(ttl_s=ttl_s, max_keys=max_keys)

    def change(self, *, double ttl_s, Py_ssize_t max_keys):
        """Be as if it had been made with these, for all keys."""
        self.ttl_s = ttl_s
        self.max_keys = max_keys

    def counters(self):
        """What is known now, by name."""
        return {"ended": len(self.ended), "running": self.running}

    def tick(self, double now_s):
        """Forget the keys whose time is over; now_s: by time.monotonic()."""
        cdef KeyRecord oldest
        cdef KeptJob job
        cdef int forgotten = 0
        while self.ended and forgotten < MOST_FORGOTTEN:
            oldest = <KeyRecord> next(iter(self.ended))
            if oldest.ended_s + self.ttl_s > now_s:
                return
            forgotten += 1
            if oldest.job_id is None:
                self._forget(oldest)
                continue
            # Its job was taken, and is known itself for ttl_s after its end: until then a retry would run it again.
            job = self.kept.find(oldest.job_id)
            if job is None or job.has_ended():
                oldest.job_id = None
            oldest.ended_s = now_s
            self.ended.move_to_end(oldest)

    cdef bytes hashed(self, bytes key, bytes token_mark):
        cdef KeyedHash hashing = KeyedHash(self.hash_key)
        # All marks have one length, so that two pairs never read alike.
        hashing.update(NO_MARK if token_mark is None else token_mark)
        hashing.update(key)
        return hashing.digest()

    cdef KeyRecord find(self, bytes hashed):
        return <KeyRecord> self.records.get(hashed)

    cdef KeyRecord begin(self, bytes hashed, bytes fingerprint):
        cdef KeyRecord record
        if not self.shared.take(KEPT_KEYS, 1, self.max_keys):
            return None
        record = KeyRecord.__new__(KeyRecord)
        record.hashed = hashed
        record.fingerprint = fingerprint
        self.records[hashed] = record
        self.running += 1
        self.all_ended.clear()
        self.counts.keys_begun += 1
        return record

    cdef int end(self, KeyRecord record) except -1:
        record.has_ended = True
        record.ended_s = time.monotonic()
        self.running -= 1
        if self.running == 0:
            self.all_ended.set()
        if record.is_released:
            self._forget(record)
        else:
            self.ended[record] = None
        record.tell_all()
        if self.records.get(record.hashed) is not record:
            return 0
        if record.job_id is not None:
            # A few words that tell where the job is: without them nobody would find it, and no other's result has room by them.
            return 0
        # All who waited have their answer, whether or not there is room for those to come.
        self.room.enter(record)
        if not self.room.hold(record):
            self.room.drop(record)
        return 0

    cdef int _forget(self, KeyRecord record) except -1:
        del self.records[record.hashed]
        self.ended.pop(record, None)
        self.shared.give(KEPT_KEYS, 1)
        return self.room.leave(record)
