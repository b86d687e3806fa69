"""Lines of the access log that a process has not written yet, and how they are written in batches that end with a line.

Theory of operation. Several processes write to one pipe or file, each with a descriptor of its own, and no line may be
torn, mixed with another or written twice. A pipe takes up to PIPE_BUF bytes whole or not at all. A file with O_APPEND takes
each write at its end; but one that is cut by a full disk leaves half a line, behind which another process could write. So
who writes to a file holds its lock (flock(2)), and takes half a line back before letting go.

Nothing waits: neither for a reader nor for a lock. What cannot be written stays here up to HELD_BYTES; then whole lines
are dropped, and counted.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, EIO, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memmove
from posix.types cimport off_t

from gatewayx.core.access_line cimport MAX_LINE_BYTES, AccessEntry, compose, fill
from gatewayx.core.counters cimport Counters

cdef extern from "<string.h>" nogil:
    void* memrchr(const void* text, int byte, size_t size)

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t write_to "write"(int descriptor, const void* data, size_t size)
    off_t lseek(int descriptor, off_t offset, int whence)
    int ftruncate(int descriptor, off_t size)
    int SEEK_CUR
    int SEEK_END

cdef extern from "<sys/file.h>" nogil:
    int flock(int descriptor, int operation)
    int LOCK_EX
    int LOCK_NB
    int LOCK_UN

HELD = HELD_BYTES
PIECE = PIECE_BYTES
FILE_PIECE = FILE_PIECE_BYTES


cdef inline Py_ssize_t whole_lines(const char* data, Py_ssize_t size) noexcept nogil:
    """How many of these bytes are whole lines."""
    cdef const char* last = <const char*> memrchr(data, c"\n", size)
    return 0 if last == NULL else last + 1 - data


@cython.final
cdef class AccessBatch:
    """The lines of one process. counters: where it counts those that are dropped; None for counters of its own."""

    def __init__(self, Counters counters=None):
        self.counted_in = Counters() if counters is None else counters
        self.descriptor = -1
        self.piece_bytes = PIECE_BYTES

    def __dealloc__(self):
        free(self.held)

    @property
    def held_bytes(self):
        """What waits to be written."""
        return self.end - self.start

    @property
    def dropped(self):
        """Lines that were dropped, in this process and in those that had its place before."""
        return self.counted_in.row.log_lines_dropped

    @property
    def error(self):
        """The number of the error of the last attempt to write; 0 if it succeeded."""
        return self.failed_with

    def attach(self, int descriptor, send=None, *, bint is_file=False):
        """Write there from now on; what has waited goes there, but for the rest of a line that was begun elsewhere.

        descriptor: its write(2) does not wait; -1 to have `send` called with bytes, which returns how many it has written
        or raises OSError. is_file: others append to it as well. Raises MemoryError.
        """
        if self.held == NULL:
            self.held = <char*> malloc(HELD_BYTES)
            if self.held == NULL:
                raise MemoryError
        if self.torn:
            self._drop_line()
        self.descriptor = descriptor
        self.send = send
        self.is_file = is_file
        self.piece_bytes = FILE_PIECE_BYTES if is_file else PIECE_BYTES
        self.pause_lines = 0
        self.failed_with = 0

    def detach(self):
        """Write nowhere from now on: what waits, and each further line, is dropped."""
        while self.start < self.end:
            self._drop_line()
        self.descriptor = -1
        self.send = None
        free(self.held)
        self.held = NULL
        self.failed_with = 0

    def flush(self):
        """Write what waits, as far as that needs no waiting; returns whether nothing is left."""
        if self.held != NULL and self.start < self.end:
            self._write_out(True)
        return self.start == self.end

    def add_line(self, **fields):
        """Take a line as access_line.line_of() makes it; for tests."""
        cdef AccessEntry entry
        fill(&entry, fields)
        self.add(&entry)

    def add_lines(self, int count, **fields):
        """The same line so often, but for `request`, which counts up from 0; for tests and measurements."""
        cdef AccessEntry entry
        cdef int number
        fill(&entry, fields)
        for number in range(count):
            entry.request = number
            self.add(&entry)

    cdef int add(self, const AccessEntry* entry) except -1:
        if self.held == NULL:
            self.counted_in.row.log_lines_dropped += 1
            return 0
        if self.pause_lines:
            self.pause_lines -= 1
        elif self.end - self.start >= self.piece_bytes:
            self._write_out(False)
        if HELD_BYTES - self.end < MAX_LINE_BYTES:
            if self.start < HELD_BYTES // 4:
                self.counted_in.row.log_lines_dropped += 1
                return 0
            memmove(self.held, self.held + self.start, self.end - self.start)
            self.end -= self.start
            self.start = 0
        self.end += compose(self.held + self.end, entry)
        return 0

    cdef int _write_out(self, bint all) except -1:
        cdef const char* data
        cdef Py_ssize_t size, written
        self.failed_with = 0
        while self.end - self.start >= (1 if all else self.piece_bytes):
            data = self.held + self.start
            size = self.end - self.start
            if size > self.piece_bytes:
                # A line is no longer than a piece.
                size = whole_lines(data, self.piece_bytes)
            written = self._append(data, size) if self.is_file else self._write(data, size)
            if written > 0:
                self.start += written
                self.torn = data[written - 1] != c"\n"
            if written < size:
                self.pause_lines = LINES_BETWEEN_ATTEMPTS
                break
        if self.start == self.end:
            self.start = self.end = 0
        return 0

    cdef Py_ssize_t _write(self, const char* data, Py_ssize_t size) except -2:
        cdef Py_ssize_t written
        if self.send is None:
            written = write_to(self.descriptor, data, size)
            while written < 0 and errno == EINTR:
                written = write_to(self.descriptor, data, size)
            if written < 0:
                self.failed_with = errno
            return written
        try:
            return self.send(PyBytes_FromStringAndSize(data, size))
        except OSError as error:
            self.failed_with = error.errno or EIO
        return -1

    cdef Py_ssize_t _append(self, const char* data, Py_ssize_t size) noexcept:
        """Write as many of these bytes to a file as end with a line, which nobody else does at the same time."""
        cdef Py_ssize_t written = 0
        cdef Py_ssize_t sent, whole
        cdef off_t ends
        # Where there are no locks, as in some file systems of other machines, a full disk may tear a line.
        if flock(self.descriptor, LOCK_EX | LOCK_NB) != 0 and errno in (EAGAIN, EINTR):
            self.failed_with = EAGAIN
            return 0
        while written < size:
            sent = write_to(self.descriptor, data + written, size - written)
            if sent < 0 and errno == EINTR:
                continue
            if sent <= 0:
                self.failed_with = errno if sent < 0 else EIO
                break
            written += sent
        whole = written if written == size else whole_lines(data, written)
        if whole < written:
            ends = lseek(self.descriptor, 0, SEEK_CUR)
            if ends == lseek(self.descriptor, 0, SEEK_END) and ftruncate(self.descriptor, ends - (written - whole)) == 0:
                written = whole
        flock(self.descriptor, LOCK_UN)
        return written

    cdef void _drop_line(self) noexcept:
        """Drop the first line, or the rest of it."""
        cdef char* line_end = <char*> memchr(self.held + self.start, c"\n", self.end - self.start)
        self.start = self.end if line_end == NULL else line_end + 1 - self.held
        self.torn = False
        self.counted_in.row.log_lines_dropped += 1
