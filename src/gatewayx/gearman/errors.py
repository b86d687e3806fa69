"""Errors of the Gearman room, sorted by whose fault they are.

`ProtocolError` and below: the peer's; the connection it came from cannot be trusted any further.
`InvalidArgumentError`, `InvalidStateError`: the caller's; nothing was sent and nothing was lost.
"""


class GearmanError(Exception):
    """Whatever the gearman package raises on purpose."""


class ProtocolError(GearmanError):
    """The peer sent bytes that are not the Gearman protocol; framing is lost, the connection must be closed.

    The message never holds the peer's bytes unescaped.
    """

    def __init__(self, reason: str, stream_bytes: int, packet_type: int | None = None) -> None:
        """Say what is wrong and where.

        reason: one phrase in plain ASCII.
        stream_bytes: offset of the offending packet's first byte in everything received on the connection.
        packet_type: the packet's type number, None where it was not read.
        """
        super().__init__(f"{reason} (packet at byte {stream_bytes} of the stream)")
        self.reason = reason
        self.stream_bytes = stream_bytes
        self.packet_type = packet_type


class BadMagicError(ProtocolError):
    """A packet does not start with the four bytes that this side expects (PROTOCOL, "Binary Packet")."""


class UnknownPacketTypeError(ProtocolError):
    """The packet's type is not one of the protocol's (PROTOCOL, "Binary Packet")."""


class MalformedPacketError(ProtocolError):
    """The packet's body does not hold the arguments that its type has."""


class PacketTooLargeError(ProtocolError):
    """The packet's body is above the reader's `max_body_bytes`."""


class InvalidArgumentError(GearmanError, ValueError):
    """An argument cannot be sent in a Gearman packet as it is."""


class InvalidStateError(GearmanError, RuntimeError):
    """A method was called out of its order."""
