"""A job that outlives its request: what is known of it, and its answer.

Theory of operation. A KeptRun (gateway/kept_run) listens to the job and tells it here; whoever asks for it reads it here, now
or whenever it changes (gateway/watching). It has one end, and its answer is the one that a client which had waited would have
been given. KeptJobs (gateway/kept_jobs) knows it by its id and counts what it takes.
"""

import datetime

cimport cython
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from gatewayx.gateway.events cimport EventLog, number_of, piece_data, status_data
from gatewayx.gateway.kept_room cimport KeptAnswer

import orjson

from gatewayx.errors import StateError

cdef enum:
    # What a job takes beside its result and events: the objects here, their places in tables, and what of the run it still has.
    RECORD_BYTES = 2048

# What each state is called.
cdef tuple STATE_NAMES = ("queued", "running", "succeeded", "failed", "cancelled", "lost", "timeout")


cdef double time_of_day() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return now.tv_sec + now.tv_nsec / 1e9


@cython.final
cdef class KeptJob(KeptAnswer):
    """A job that outlives its request; the .pxd says what each field means."""

    cdef Py_ssize_t room_bytes(self):
        return RECORD_BYTES + self.events.held_bytes() + KeptAnswer.room_bytes(self)

    cdef int change(self, KeptState state) except -1:
        if self.state >= SUCCEEDED or state <= self.state:
            raise StateError(f"a kept job cannot go from {STATE_NAMES[<int> self.state]} to {STATE_NAMES[<int> state]}")
        self.state = state
        return 0

    cdef int created(self, double now_s) except -1:
        self.is_created = True
        self.created_s = now_s
        self.touch()
        self.events.add(b"created", self.json())
        return 0

    cdef int started(self) except -1:
        if self.state == QUEUED:
            self.change(RUNNING)
            self.started_s = time_of_day()
            self.touch()
        return 0

    cdef int progressed(self, bytes numerator, bytes denominator) except -1:
        self.started()
        self.numerator = numerator
        self.denominator = denominator
        self.touch()
        self.events.add(b"status", status_data(numerator, denominator))
        return 0

    cdef int said(self, bytes kind, bytes data) except -1:
        self.started()
        self.events.add(kind, piece_data(data))
        return 0

    cdef int ended(
        self, KeptState state, double ended_s, double expires_s, bytes kind, str reason, bytes data
    ) except -1:
        cdef dict told
        self.change(state)
        self.ended_s = ended_s
        self.expires_s = expires_s
        self.touch()
        told = self._told()
        if reason is not None:
            told["detail"] = reason
        if data is not None:
            told.update(orjson.loads(piece_data(data)))
        self.events.add(kind, orjson.dumps(told))
        return 0

    cdef int drop(self) except -1:
        KeptAnswer.drop(self)
        return self.touch()

    cdef int touch(self) except -1:
        self.version += 1
        self.shown = None
        return 0

    cdef bytes json(self):
        if self.shown is None:
            self.shown = orjson.dumps(self._told())
        return self.shown

    cdef dict _told(self):
        cdef str path = "/v1/jobs/" + self.id.decode("ascii")
        cdef object progress = None
        cdef object result = None
        if self.numerator is not None:
            progress = {"numerator": number_of(self.numerator), "denominator": number_of(self.denominator)}
        if self.body is not None:
            result = {"bytes": self.body_bytes, "content_type": self.content_type.decode("latin-1")}
        return {
            "id": self.id.decode("ascii"),
            "function": self.function.decode("utf-8", "backslashreplace"),
            "kind": "kept",
            "state": STATE_NAMES[<int> self.state],
            "progress": progress,
            "created": _time(self.created_s),
            "started": _time(self.started_s),
            "ended": _time(self.ended_s),
            "expires": _time(self.expires_s),
            "result": result,
            "links": {
                "self": path,
                "result": path + "/result",
                "events": path + "/events",
                "cancel": path + "/cancel",
            },
        }


cdef str _time(double since_epoch_s):
    """RFC 3339, to the millisecond; None for a time that has not come."""
    if since_epoch_s == 0:
        return None
    told = datetime.datetime.fromtimestamp(since_epoch_s, datetime.timezone.utc)
    return told.isoformat(timespec="milliseconds").replace("+00:00", "Z")
