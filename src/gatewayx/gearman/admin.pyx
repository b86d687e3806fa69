"""The text protocol of a job server, on a connection of its own, since its replies are not framed.

`cancel job <handle>` is answered OK for queued, running and cancelled jobs alike, and the job ends with a WORK_FAIL on
the connection that submitted it (libgearman-server/text.cc). Handles begin at 1 again when a job server restarts, so a
cancellation must reach the life of the job server that gave the handle: it is sent only on a connection that has been
up since before the handle was given. A lost connection never comes up again; a new one is another object.
"""

cimport cython


@cython.final
cdef class AdminConnection:
    """A text connection; an asyncio protocol, to be given to create_connection(). loop: the event loop."""

    def __init__(self, loop):
        self.loop = loop
        self.came_up = loop.create_future()
        self.gone = loop.create_future()
        self.handles = []

    def close(self, str reason):
        """Close at once; cancellations that have not left are dropped."""
        self._close(reason)

    cdef int cancel(self, bytes handle) except -1:
        if not self.up:
            return 0
        if self.unanswered >= MAX_PENDING_CANCELS:
            self.cancels_left_out += 1
            return 0
        if not self.handles:
            self.loop.call_soon(self._flush)
        self.handles.append(handle)
        self.unanswered += 1
        self.cancels_requested += 1
        return 0

    def _flush(self):
        cdef list handles = self.handles
        self.handles = []
        if self.up and not self.transport.is_closing():
            self.transport.write(b"".join([b"cancel job %b\n" % handle for handle in handles]))

    def connection_made(self, transport):
        """asyncio: connected; an answer is what proves that the job server lives."""
        self.transport = transport
        if self.closed:
            transport.abort()
            return
        self.unanswered = 1
        transport.write(b"version\n")

    def data_received(self, bytes data not None):
        """asyncio: answers, of one line each."""
        self.unanswered -= data.count(b"\n")
        if self.unanswered < 0:
            self._close("the job server answered more than it was asked")
        elif not self.up and not self.closed and b"\n" in data:
            self.up = True
            self.came_up.set_result(None)

    def eof_received(self):
        """asyncio: the job server has closed its side."""
        self._close("the job server closed the text connection")

    def connection_lost(self, error):
        """asyncio: the connection is gone."""
        self._close("the text connection was lost" if error is None else f"the text connection was lost: {error}")
        self.transport = None

    def pause_writing(self):
        """asyncio: the job server does not read; `unanswered` bounds what waits."""

    def resume_writing(self):
        """asyncio: the job server reads again."""

    cdef int _close(self, str reason) except -1:
        if self.closed:
            return 0
        self.closed = True
        self.up = False
        self.close_reason = reason
        self.handles = []
        if self.transport is not None:
            self.transport.abort()
        if not self.came_up.done():
            self.came_up.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        return 0


@cython.final
cdef class AdminSlot:
    """The text connection to one job server that is up; None while none is."""
