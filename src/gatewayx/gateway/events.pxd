"""What happens to a kept job, as events: numbered, encoded as server-sent events, the last of them kept."""

from gatewayx.core.budget cimport ByteBudget, Held

cdef enum:
    # So many of the last events are kept, of so many bytes together.
    MOST_EVENTS = 64
    MOST_EVENT_BYTES = 65536


cdef class EventLog:
    # The id of the job, in the id of each event: `<job-id>.<number>`.
    cdef bytes job_id
    # Numbers count from 1: of the oldest event that is kept, and of the next one.
    cdef readonly long long first
    cdef readonly long long next
    # Encoded whole, oldest first; a deque.
    cdef object kept
    cdef Py_ssize_t kept_bytes

    # One more event of this kind, whose data is one line of JSON; returns the event's bytes.
    cdef bytes add(self, bytes kind, bytes data)
    # An event that is kept, whole.
    cdef bytes event(self, long long number)
    # The event that says that those from this number up to the oldest kept one are kept no more.
    cdef bytes gap(self, long long missing)
    # The oldest event that is kept is kept no more; there is one.
    cdef int forget_oldest(self) except -1
    # What it takes, in bytes.
    cdef Py_ssize_t held_bytes(self)


# A numerator or denominator as JSON has it: a number if it is a decimal one of at most 18 digits, else text with everything escaped that is
# not printable.
cdef object number_of(bytes text)
# The data of events, each a line of JSON.
cdef bytes status_data(bytes numerator, bytes denominator)
# What a worker has sent: as text where it is UTF-8, else in base64.
cdef bytes piece_data(bytes piece)
# What a Last-Event-ID tells, (the job's id, the number of the event), and None if it is none of ours; that the id is one is not looked at.
cdef tuple read_event_id(bytes text)
