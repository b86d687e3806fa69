"""Tokens for tests: secrets, and the file that has their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gatewayx.config import tokens


def bearer(secret: str, scheme: bytes = b"Bearer") -> bytes:
    """The header line that gives a token."""
    return b"Authorization: %b %b" % (scheme, secret.encode())


class TokenFile:
    """A file of tokens that a test writes, and the secrets by the tables' names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.secrets: dict[str, str] = {}
        self.write()

    def table(self, name: str, *lines: str, secret: str | None = None) -> str:
        """A table for a token of this name: a new one if no secret is given; its secret is in `secrets`."""
        self.secrets[name] = secret or tokens.new_token()
        sha256 = hashlib.sha256(self.secrets[name].encode()).hexdigest()
        return "\n".join(["[[token]]", f'name = "{name}"', f'sha256 = "{sha256}"', *lines, ""])

    def write(self, *tables: str) -> None:
        """What the file says from now on; a reader finds all of it or what was there before."""
        beside = self.path.with_suffix(".new")
        beside.write_text("\n".join(tables), encoding="utf-8")
        beside.chmod(0o600)
        beside.replace(self.path)

    def line(self, name: str) -> bytes:
        """The header line that gives the token of this name which was made last."""
        return bearer(self.secrets[name])
