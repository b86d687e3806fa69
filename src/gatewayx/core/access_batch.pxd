"""Lines of the access log that a process has not written yet, and how they are written in batches that end with a line."""

from gatewayx.core.access_line cimport AccessEntry
from gatewayx.core.counters cimport Counters

cdef enum:
    # What waits to be written at most; further lines are dropped. Room is made when a quarter of it has been written.
    HELD_BYTES = 1024 * 1024
    # A write to a pipe, a terminal or a socket: PIPE_BUF, so that no other process's comes between (pipe(7)).
    PIECE_BYTES = 4096
    # A write to a file.
    FILE_PIECE_BYTES = 64 * 1024
    # After a write that failed the next one is attempted so many lines later, or at the next flush().
    LINES_BETWEEN_ATTEMPTS = 8


cdef class AccessBatch:
    # Where dropped lines are counted.
    cdef Counters counted_in
    # HELD_BYTES; NULL while there is nothing to write to.
    cdef char* held
    # What is not written yet stands between these two places.
    cdef Py_ssize_t start
    cdef Py_ssize_t end
    # Of the first line a part was written, and the rest was not.
    cdef bint torn
    # A descriptor whose write(2) does not wait; -1 if `send` is asked instead, which takes bytes and returns how many it
    # has written, or raises OSError.
    cdef int descriptor
    cdef object send
    # It is a file that others append to as well.
    cdef bint is_file
    cdef Py_ssize_t piece_bytes
    # Lines before the next attempt.
    cdef int pause_lines
    # errno of the last attempt; 0 if it succeeded.
    cdef int failed_with

    # Take the line of an entry, or count it as dropped.
    cdef int add(self, const AccessEntry* entry) except -1
    # Write batches as long as there are whole ones, or until nothing is left.
    cdef int _write_out(self, bint all) except -1
    # What write(2) returns, with errno in `failed_with`.
    cdef Py_ssize_t _write(self, const char* data, Py_ssize_t size) except -2
    cdef Py_ssize_t _append(self, const char* data, Py_ssize_t size) noexcept
    cdef void _drop_line(self) noexcept
