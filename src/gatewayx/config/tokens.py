"""The file of tokens: how it is read and judged, and how a new token is made.

The file has the SHA-256 of each token, never the token itself. Where somebody has put one into it by mistake no message
may tell it on: messages name the file, the table and the key, and show no value.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import secrets
import stat
import sys
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from gatewayx.config.kinds import DisallowedValueError, FunctionList, escaped, printable
from gatewayx.config.rate_kinds import HIGHEST_BURST, HIGHEST_PER_S, LOWEST_PER_S, RateBound, rate_bound
from gatewayx.core import certificate_names
from gatewayx.errors import SettingError

# Bounds of a file, which is read whole and handed to all processes.
MOST_FILE_BYTES = 1024**2
MOST_TOKENS = 4096
# Bounds of what a table says.
MOST_JOBS = 1_000_000
MOST_SANS = 64

PRIORITIES = ("low", "normal", "high")

# A token is this prefix, TOKEN_BYTES random bytes in base64url, 43 letters, and the CRC-32 of all before it.
PREFIX = "gwx_"
TOKEN_BYTES = 32
# Whatever looks like the beginning of one is left out of messages.
_LIKE_A_TOKEN = re.compile(r"gwx_[A-Za-z0-9_-]+")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
NAME_ALLOWED = "1 to 64 letters, digits, dots, dashes, underscores and @, a letter or digit first, and no token"
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)

# A name of a certificate, without wildcards: they say who may answer for many hosts, and never who it is that asks.
_SAN = re.compile(r"(DNS|URI|email|IP):([!-)+-~]+)", re.ASCII)
SAN_ALLOWED = f"DNS:, URI:, email: or IP: and a name without * and blanks, or a list of 1 to {MOST_SANS} of them"

_FUNCTIONS = FunctionList()


class TokenEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One table: a token that is known by its hash, by names in client certificates, or both, and what it reaches."""

    name: str
    # None for a token that only certificates stand for.
    sha256: bytes | None = None
    # Names as core/certificate_names has them.
    san: tuple[str, ...] = ()
    # Names, `*` at the end of one for any rest; empty for all functions.
    functions: tuple[str, ...] = ()
    # Requests a second, 0 for any number, and how many of them may come at once.
    rate: float = 0.0
    burst: int = 0
    # Jobs in flight, of all tokens of the name together; 0 for any number.
    max_jobs: int = 0
    highest_priority: str = "high"
    background: bool = True
    # Since the epoch; None for never.
    expires_s: float | None = None


def without_tokens(text: str) -> str:
    """The text without what looks like a token."""
    return _LIKE_A_TOKEN.sub(f"{PREFIX}...", text)


def read(path: str) -> bytes:
    """Read the file that the path leads to, if nobody but its owner may write to it. Raises SettingError."""
    try:
        # A pipe would be waited at.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                _refuse(_origin(path), "is no regular file")
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                mode = stat.S_IMODE(found.st_mode)
                _refuse(_origin(path), f"may be written to by others than its owner (mode {mode:04o})")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MOST_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        _refuse(_origin(path), f"cannot be read, {printable(getattr(error, 'strerror', None) or str(error))}")
    if len(content) > MOST_FILE_BYTES:
        _refuse(_origin(path), f"is larger than {MOST_FILE_BYTES} bytes")
    return content


def parse(path: str, content: bytes) -> tuple[TokenEntry, ...]:
    """The tokens of a file with this content. Raises SettingError."""
    document = _parse_toml(path, content)
    tables = document.pop("token", [])
    for key in document:
        _refuse(_origin(path), f"the key {escaped(key)} is not known: tokens stand in [[token]] tables")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        _refuse(_origin(path), "token is no [[token]] table")
    if len(tables) > MOST_TOKENS:
        _refuse(_origin(path), f"more than {MOST_TOKENS} tokens")
    entries: list[TokenEntry] = []
    known: dict[bytes | str, TokenEntry] = {}
    for number, table in enumerate(tables, 1):
        entry = _Table(_origin(path), number, table).entry()
        entries.append(entry)
        for mark in (entry.sha256, *entry.san):
            other = entry if mark is None else known.setdefault(mark, entry)
            if other is not entry:
                same = "san" if isinstance(mark, str) else "sha256"
                _refuse(_origin(path), f"[[token]] {other.name} and [[token]] {entry.name}: both have the same {same}")
    return tuple(entries)


def _refuse(origin: str, reason: str) -> NoReturn:
    raise SettingError(without_tokens(f"{origin}: {reason}")) from None


def _origin(path: str) -> str:
    return f"tokens = {escaped(path)}"


def _parse_toml(path: str, content: bytes) -> dict[str, object]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        _refuse(_origin(path), "is not UTF-8")
    # tomllib lets ValueError (a number of thousands of digits) and RecursionError (deep nesting) through.
    except (ValueError, RecursionError) as error:
        _refuse(_origin(path), f"is not TOML, {printable(str(error))}")


class _Table:
    """One [[token]] table, the number-th of the file, as it is judged."""

    def __init__(self, origin: str, number: int, values: dict[str, object]) -> None:
        self._origin = origin
        self._values = values
        name = values.get("name")
        # One without a good name is told by its number.
        self._title = f"[[token]] {name}" if _is_name(name) else f"[[token]] number {number}"

    def entry(self) -> TokenEntry:
        """What it says. Raises SettingError."""
        readers = {
            "name": self._name,
            "sha256": self._sha256,
            "san": self._san,
            "functions": self._functions,
            "rate": self._rate,
            "burst": self._burst,
            "max_jobs": self._max_jobs,
            "highest_priority": self._highest_priority,
            "background": self._background,
            "expires": self._expires,
        }
        for key in self._values:
            if key not in readers:
                self._refuse(f"{escaped(key)} is no key of a token")
        if "name" not in self._values:
            self._refuse("name is missing")
        if "sha256" not in self._values and "san" not in self._values:
            self._refuse("sha256 is missing, and san, one of which it needs")
        if "burst" in self._values and "rate" not in self._values:
            self._refuse("burst is of no use without rate")
        fields = {key: readers[key](value) for key, value in self._values.items()}
        if "rate" in fields:
            fields["burst"] = self._whole_rate(fields).burst
        if "expires" in fields:
            fields["expires_s"] = fields.pop("expires")
        return msgspec.convert(fields, TokenEntry)

    def _refuse(self, reason: str) -> NoReturn:
        _refuse(self._origin, f"{self._title}: {reason}")

    def _disallowed(self, key: str, allowed: str) -> NoReturn:
        self._refuse(f"{key} is not allowed: it must be {allowed}")

    def _name(self, value: object) -> str:
        if not _is_name(value):
            self._disallowed("name", NAME_ALLOWED)
        return str(value)

    def _sha256(self, value: object) -> bytes:
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            self._disallowed("sha256", "the SHA-256 of the token as 64 hexadecimal digits, never the token itself")
        return bytes.fromhex(value)

    def _san(self, value: object) -> tuple[str, ...]:
        values = value if isinstance(value, list) else [value]
        names = [_san(each) for each in values]
        if not 1 <= len(names) <= MOST_SANS or None in names:
            self._disallowed("san", SAN_ALLOWED)
        if len(set(names)) < len(names):
            self._refuse("san has the same name twice")
        return tuple(name for name in names if name is not None)

    def _functions(self, value: object) -> tuple[str, ...]:
        try:
            # A text is no list here.
            return tuple(str(name) for name in _FUNCTIONS.parse(value if isinstance(value, list) else None))
        except DisallowedValueError:
            self._disallowed("functions", f"a list of {_FUNCTIONS.allowed}")

    def _rate(self, value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not LOWEST_PER_S <= value <= HIGHEST_PER_S:
            self._disallowed("rate", f"a number of requests a second from {LOWEST_PER_S} to {HIGHEST_PER_S}")
        return float(value)

    def _burst(self, value: object) -> int:
        return self._integer("burst", value, HIGHEST_BURST)

    def _whole_rate(self, fields: dict[str, Any]) -> RateBound:
        try:
            return rate_bound(fields["rate"], fields.get("burst"))
        except DisallowedValueError:
            self._disallowed("burst", "at most a day's worth of rate")

    def _max_jobs(self, value: object) -> int:
        return self._integer("max_jobs", value, MOST_JOBS)

    def _integer(self, key: str, value: object, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            self._disallowed(key, f"a whole number from 1 to {most}")
        return value

    def _highest_priority(self, value: object) -> str:
        if value not in PRIORITIES:
            self._disallowed("highest_priority", f"one of {', '.join(PRIORITIES)}")
        return str(value)

    def _background(self, value: object) -> bool:
        if not isinstance(value, bool):
            self._disallowed("background", "true or false")
        return value

    def _expires(self, value: object) -> float:
        moment = _moment(value)
        if moment is None:
            self._disallowed("expires", "a date, or a date and time with its offset, such as 2027-01-31T12:00:00Z")
        return moment.timestamp()


def _is_name(value: object) -> bool:
    # Names are told everywhere.
    return isinstance(value, str) and _NAME.fullmatch(value) is not None and not value.startswith(PREFIX)


def _san(value: object) -> str | None:
    """The name of a certificate that a value of TOML is, as core/certificate_names has it; None if it is none."""
    found = _SAN.fullmatch(value) if isinstance(value, str) else None
    return None if found is None else certificate_names.canonical(found[1], found[2])


def _moment(value: object) -> datetime.datetime | None:
    """The moment that a value of TOML is, a date being its beginning in UTC; None if it is none."""
    if isinstance(value, datetime.datetime):
        return value if value.tzinfo is not None else None
    if isinstance(value, datetime.date):
        return datetime.datetime.combine(value, datetime.time(), datetime.timezone.utc)
    return None


def new_token() -> str:
    """A token that nobody has."""
    text = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    return f"{text}{zlib.crc32(text.encode()):08x}"


def parse_expiry(text: str) -> datetime.date:
    """The date, or the date and time, that a text is. Raises SettingError."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
            return datetime.date.fromisoformat(text)
        # Before Python 3.11 it takes no Z.
        return datetime.datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text))
    except ValueError:
        raise SettingError(
            f"{escaped(text)} is no date, nor a date and time with its offset, such as 2027-01-31T12:00:00Z"
        ) from None


def table_for(token: str | None, name: str, values: Mapping[str, object]) -> str:
    """The [[token]] table of a token, as TOML; values: by key, those that it is to have. Raises SettingError.

    It is what parse() takes, or nothing. token: None for one that only certificates stand for.
    """
    sha256 = None if token is None else hashlib.sha256(token.encode()).hexdigest()
    known = {"name": name, "sha256": sha256, **values}
    lines = [f"{key} = {_toml(value)}" for key, value in known.items() if value is not None]
    table = "\n".join(["[[token]]", *lines])
    _Table("a new token", 1, {key: value for key, value in known.items() if value is not None}).entry()
    return table


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    # What JSON escapes TOML escapes in the same way.
    return json.dumps(value, ensure_ascii=False)
