"""SipHash-2-4 with outputs of 128 and 64 bits; the .pxd has the C-level interface."""

from typing import final

def sip_digest(key: bytes, text: bytes) -> int:
    """What sip_hash() tells, for tests."""

def short_digest(key: bytes, text: bytes) -> tuple[int, int]:
    """What hash_short() tells, for tests."""

@final
class KeyedHash:
    """The hash of what update() is given. key: KEY_BYTES bytes that nobody else knows, else ValueError."""

    def __new__(cls, key: bytes) -> KeyedHash: ...
    @property
    def hashed_bytes(self) -> int: ...
    def update(self, piece: bytes) -> int:
        """Take more bytes."""
    def digest(self) -> bytes:
        """The hash of all bytes so far; more may follow."""
