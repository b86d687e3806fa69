"""The file with the keys by which ids of jobs are signed: how it is read and judged.

Whoever knows a key can make ids, so no message shows what stands in the file.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import NamedTuple, NoReturn

from gatewayx.config.kinds import escaped, printable
from gatewayx.errors import SettingError

# As in core/keyed_hash.pxd.
KEY_BYTES = 16
# The first signs, both are read.
MOST_KEYS = 2
# Of a line: as many as a key has bits for, and more than anybody makes.
LEAST_DIGITS = 2 * KEY_BYTES
MOST_DIGITS = 1024
MOST_FILE_BYTES = 8192

_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]+", re.ASCII)


class IdKeys(NamedTuple):
    """What a file has."""

    # KEY_BYTES each, the one that signs first.
    keys: tuple[bytes, ...]
    # What is to be told about it; None for nothing.
    warning: str | None


def read(path: str) -> IdKeys:
    """The keys of the file that the path leads to, if nobody but its owner may write to it. Raises SettingError."""
    try:
        # A pipe would be waited at.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                _refuse(path, "is no regular file")
            if mode & (stat.S_IWGRP | stat.S_IWOTH):
                _refuse(path, f"may be written to by others than its owner (mode {stat.S_IMODE(mode):04o})")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MOST_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        _refuse(path, f"cannot be read, {printable(getattr(error, 'strerror', None) or str(error))}")
    if len(content) > MOST_FILE_BYTES:
        _refuse(path, f"is larger than {MOST_FILE_BYTES} bytes")
    warning = None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        warning = f"{_origin(path)} may be read by others than its owner (mode {stat.S_IMODE(mode):04o})"
    return IdKeys(parse(path, content), warning)


def parse(path: str, content: bytes) -> tuple[bytes, ...]:
    """The keys of a file with this content, but for lines that are empty or begin with #. Raises SettingError."""
    keys: list[bytes] = []
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), 1):
        digits = line.strip()
        if not digits or digits.startswith("#"):
            continue
        if len(keys) == MOST_KEYS:
            _refuse(path, f"line {number} is a key too many: one signs, and the one before it is read")
        if not _HEXADECIMAL.fullmatch(digits) or not LEAST_DIGITS <= len(digits) <= MOST_DIGITS or len(digits) % 2:
            _refuse(
                path,
                f"line {number} is not allowed: it must be an even number of hexadecimal digits from {LEAST_DIGITS} to "
                f"{MOST_DIGITS}, as openssl rand -hex 32 makes them",
            )
        key = hashlib.blake2b(bytes.fromhex(digits), digest_size=KEY_BYTES).digest()
        if key in keys:
            _refuse(path, f"line {number} is the same key once more")
        keys.append(key)
    if not keys:
        _refuse(path, "has no key: openssl rand -hex 32 makes one")
    return tuple(keys)


def _origin(path: str) -> str:
    return f"id-key = {escaped(path)}"


def _refuse(path: str, reason: str) -> NoReturn:
    raise SettingError(f"{_origin(path)}: {reason}") from None
