"""What a job server's connection and a worker's have in common: packets are gathered and written once a loop turn."""

from gatewayx.gearman.packet cimport LARGE_BYTES, pack, packet_head


cdef class Output:
    """The sending side of a connection."""

    def __cinit__(self):
        self.out = []

    cdef int send(self, int packet_type, tuple leading, bytes last) except -1:
        if len(last) > COPY_BYTES:
            self.send_bytes(packet_head(self.magic, packet_type, leading, len(last)))
            return self.send_bytes(last)
        return self.send_bytes(pack(self.magic, packet_type, leading, last))

    cdef int send_bytes(self, bytes data) except -1:
        if self.closing:
            return 0
        if not self.out:
            self.flush_later()
        self.out.append(data)
        self.out_bytes += len(data)
        return 0

    cdef int flush_later(self) except -1:
        raise NotImplementedError

    cdef int flush(self) except -1:
        """Write what this loop turn has gathered."""
        cdef list out = self.out
        if self.closing or not out:
            return 0
        self.out = []
        if self.out_bytes > LARGE_BYTES:
            self.transport.writelines(out)
        else:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        self.out_bytes = 0
        return 0

    cdef int forget_transport(self) except -1:
        self.transport = None
        self.closing = True
        self.out.clear()
        return 0
