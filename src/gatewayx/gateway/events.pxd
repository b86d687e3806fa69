"""What happens to a kept job, as events: numbered, encoded as server-sent events, the last of them kept."""

cdef enum:
    # So many of the last events are kept, of so many bytes together.
    MOST_EVENTS = 64
    MOST_EVENT_BYTES = 65536
    # What an event takes beside its bytes: the object's head, and its place in the log.
    EVENT_OBJECT_BYTES = 48
    # Of a numerator or denominator that is no number so much is told.
    MOST_NUMBER_BYTES = 64


cdef class EventLog:
    # The id of the job, in the id of each event: `<job-id>.<number>`.
    cdef bytes job_id
    # Numbers count from 1: of the oldest event that is kept, and of the next one.
    cdef readonly long long first
    cdef readonly long long next
    # Encoded whole, oldest first; a deque.
    cdef object kept
    cdef readonly Py_ssize_t kept_bytes
    # The last event, if it is too large to be kept, until all who listen were told; None otherwise.
    cdef bytes passing

    # One more event of this kind, whose data is one line of JSON; returns the event's bytes. One that is larger than
    # MOST_EVENT_BYTES is there until told() alone, and with it none before it is kept any more.
    cpdef bytes add(self, bytes kind, bytes data)
    # All who listen have had their chance to take the last event.
    cpdef int told(self) except -1
    # An event that is kept, or passes, whole.
    cpdef bytes event(self, long long number)
    # All from this number on, of which at least the first is kept or passes, in one piece.
    cpdef bytes events_from(self, long long number)
    # The event that says that those from this number up to the oldest kept one are kept no more. Its id is that of the last of
    # them, so that whoever has had it is not told of them again.
    cpdef bytes gap(self, long long missing)
    # The oldest event that is kept is kept no more; there is one.
    cpdef int forget_oldest(self) except -1
    # What it keeps takes, in bytes.
    cpdef Py_ssize_t held_bytes(self)

    # Of the oldest event that is there, kept or passing; that of the next one if none is.
    cdef inline long long oldest(self) noexcept:
        return self.first if self.passing is None else self.next - 1


# A numerator or denominator as JSON has it: a number if it is a decimal one of at most 18 digits, else text with everything
# escaped that is not printable.
cpdef object number_of(bytes text)
# How much of it is done, in whole percent from 0 to 100; None unless both are decimal numbers, and there is something to do.
cpdef object percent_of(object numerator, object denominator)
# The data of events, each a line of JSON.
cpdef bytes status_data(bytes numerator, bytes denominator)
# What a worker has sent: as text where it is UTF-8, else in base64.
cpdef bytes piece_data(bytes piece)
# What a Last-Event-ID tells, (the job's id, the number of the event), and None if it is none of ours; that the id is one is not looked at.
cpdef tuple read_event_id(bytes text)
