"""Records of TLS 1.3 that are made by hand: what no library sends so often (RFC 8446)."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

APPLICATION_DATA = 23
HANDSHAKE = 22
# 4.6.3: a KeyUpdate that does not ask for one, and one that does.
KEY_UPDATE = bytes((24, 0, 0, 1, 0))
ASKING_KEY_UPDATE = bytes((24, 0, 0, 1, 1))


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label with SHA-384 and an empty context (7.1), for at most one block."""
    label = b"tls13 " + label
    information = length.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
    return hmac.new(secret, information + b"\x01", hashlib.sha384).digest()[:length]


class ClientRecords:
    """What a client sends from the end of its handshake on, with TLS_AES_256_GCM_SHA384.

    key_log: the file that its ssl.SSLContext writes keys to.
    """

    def __init__(self, key_log: Path) -> None:
        [secret] = [
            line.split()[2] for line in key_log.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")
        ]
        self._take(bytes.fromhex(secret))

    def _take(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(_expand(secret, b"key", 32))
        self._iv = _expand(secret, b"iv", 12)
        self._count = 0

    def record(self, data: bytes, kind: int = APPLICATION_DATA) -> bytes:
        """One record (5.2)."""
        inner = data + bytes((kind,))
        head = bytes((APPLICATION_DATA, 3, 3)) + (len(inner) + 16).to_bytes(2, "big")
        nonce = (int.from_bytes(self._iv, "big") ^ self._count).to_bytes(12, "big")
        self._count += 1
        return head + self._cipher.encrypt(nonce, inner, head)

    def key_update(self, update: bytes = KEY_UPDATE) -> bytes:
        """A record after which the keys are others (7.2)."""
        made = self.record(update, HANDSHAKE)
        self._take(_expand(self._secret, b"traffic upd", 48))
        return made
