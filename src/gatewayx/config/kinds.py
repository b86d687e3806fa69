"""How a setting's value is read, bounded and shown: one class for each kind of value."""

from __future__ import annotations

import re
from typing import ClassVar, NamedTuple

from gatewayx.address import AddressError, ServerAddress

KIBIBYTE = 1024
MEBIBYTE = 1024**2
GIBIBYTE = 1024**3

# Characters of a value from outside that a message shows.
LONGEST_SHOWN_VALUE = 120


class FunctionBound(NamedTuple):
    """How many jobs of a function may be in flight; a name with `*` at its end stands for all that begin so."""

    name: str
    jobs: int


class FunctionServer(NamedTuple):
    """A job server that a function is mapped to; a name with `*` at its end stands for all that begin so."""

    name: str
    server: ServerAddress


class SocketOwner(NamedTuple):
    """Whose a unix socket is: a user and a group, each a name or a number; empty where none was given."""

    user: str
    group: str


class DisallowedValueError(Exception):
    """A value outside what its kind allows; `load` turns it into a SettingError."""


class Kind:
    """How one setting's values are read, bounded and shown. A value comes as text or as its TOML type."""

    # What --help shows in place of a value.
    metavar: ClassVar[str]

    @property
    def bounds(self) -> str:
        """The lowest and the highest value; empty where a value is not a number."""
        return ""

    @property
    def allowed(self) -> str:
        """What a value may be, to follow the words "must be"."""
        raise NotImplementedError

    def parse(self, value: object) -> object:
        """Return the value as the field's type. Raises DisallowedValueError."""
        raise NotImplementedError

    def show(self, value: object) -> str:
        """Return the text that `parse` reads back as this value."""
        return str(value)

    def from_flags(self, values: tuple[str, ...]) -> object:
        """Return what `parse` reads for a flag that was given several times."""
        return ",".join(values)


class FunctionList(Kind):
    """None or several distinct function names, `*` at the end of one for any rest; as text, separated by commas."""

    metavar = "NAME"
    most = 1024
    longest = 4096
    # Whether an entry may stand there again.
    may_repeat = False

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"1 to {self.most} different names of up to {self.longest} bytes, without control characters, * only last"
        )

    def parse(self, value: object) -> tuple[object, ...]:
        """See Kind."""
        if value == "":
            return ()
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not 1 <= len(texts) <= self.most:
            raise DisallowedValueError
        entries = tuple(self._parse_one(text) for text in texts)
        names = [self._name(entry) for entry in entries]
        if not self.may_repeat and len(set(names)) != len(names):
            raise DisallowedValueError
        return entries

    def _parse_one(self, text: object) -> object:
        if not isinstance(text, str) or "*" in text[:-1] or any(char < " " or char == "\x7f" for char in text):
            raise DisallowedValueError
        try:
            length = len(text.encode())
        except UnicodeEncodeError:
            raise DisallowedValueError from None
        if not 1 <= length <= self.longest:
            raise DisallowedValueError
        return text

    def _name(self, entry: object) -> object:
        return entry

    def from_flags(self, values: tuple[str, ...]) -> object:
        """See Kind. A name may hold a comma."""
        return values

    def show(self, value: object) -> str:
        """See Kind."""
        assert isinstance(value, tuple)
        return ",".join(value)


class FunctionBounds(FunctionList):
    """None or several NAME=N: the names as in FunctionList, N a number of jobs."""

    metavar = "NAME=N"
    highest = 1_000_000

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"1 to {self.most} NAME=N, the names different and * only last, N from 0 to {self.highest}"

    def _parse_one(self, text: object) -> object:
        name, equals, bound = text.rpartition("=") if isinstance(text, str) else ("", "", "")
        if not equals or not re.fullmatch(r"[0-9]{1,7}", bound, re.ASCII) or int(bound) > self.highest:
            raise DisallowedValueError
        return FunctionBound(str(super()._parse_one(name)), int(bound))

    def _name(self, entry: object) -> object:
        assert isinstance(entry, FunctionBound)
        return entry.name

    def show(self, value: object) -> str:
        """See Kind."""
        assert isinstance(value, tuple)
        return ",".join(f"{bound.name}={bound.jobs}" for bound in value)


class QueueBounds(FunctionBounds):
    """As FunctionBounds, where N alone is for every function."""

    metavar = "[NAME=]N"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"1 to {self.most} NAME=N or N alone for every function, the names different and * only last, "
            f"N from 0 to {self.highest}"
        )

    def _parse_one(self, text: object) -> object:
        return super()._parse_one(f"*={text}" if isinstance(text, str) and "=" not in text else text)

    def parse(self, value: object) -> tuple[object, ...]:
        """See Kind."""
        # TOML's true would pass as 1; a number of thousands of digits cannot be written out.
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= self.highest:
            value = str(value)
        return super().parse(value)


class FunctionServers(FunctionList):
    """None or several NAME=SERVER: the names as in FunctionList, though one may be mapped to several job servers."""

    metavar = "NAME=[SCHEME://]HOST:PORT"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"1 to {self.most} different NAME=HOST:PORT, * only last in the name, HOST:PORT and what stands before it "
            "as in server"
        )

    def _parse_one(self, text: object) -> object:
        # A name may hold an equals sign, an address does not.
        name, equals, address = text.rpartition("=") if isinstance(text, str) else ("", "", "")
        if not equals:
            raise DisallowedValueError
        try:
            server = ServerAddress.parse(address)
        except AddressError as error:
            raise DisallowedValueError from error
        if not server.port:
            raise DisallowedValueError
        return FunctionServer(str(super()._parse_one(name)), server)

    def show(self, value: object) -> str:
        """See Kind."""
        assert isinstance(value, tuple)
        return ",".join(f"{entry.name}={entry.server}" for entry in value)


class Number(Kind):
    """A number from `lowest` to `highest`."""

    # What a value may be written as.
    _text: ClassVar[re.Pattern[str]]
    # What it may be as a TOML value.
    _types: ClassVar[tuple[type[float], ...]]

    def __init__(self, lowest: float, highest: float) -> None:
        self.lowest = lowest
        self.highest = highest

    @property
    def bounds(self) -> str:
        """See Kind."""
        return f"{self.show(self.lowest)} to {self.show(self.highest)}"

    def parse(self, value: object) -> float:
        """See Kind."""
        if isinstance(value, str):
            match = self._text.fullmatch(value)
            if match is None:
                raise DisallowedValueError
            value = self._read(match)
        # TOML's true would pass as 1.
        if isinstance(value, bool) or not isinstance(value, self._types):
            raise DisallowedValueError
        # Compared before the conversion: a huge TOML integer overflows a float. NaN fails the comparison.
        if not self.lowest <= value <= self.highest:
            raise DisallowedValueError
        return self._number(value)

    def _read(self, match: re.Match[str]) -> float:
        """Return the number that a text of `_text` stands for."""
        return self._number(match[0])

    def _number(self, value: str | float) -> float:
        """Return the field's type."""
        raise NotImplementedError


class Integer(Number):
    """A whole number from `lowest` to `highest`."""

    metavar = "N"
    _text = re.compile(r"[0-9]{1,19}", re.ASCII)
    _types = (int,)

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{self.bounds}, a whole number"

    def _number(self, value: str | float) -> int:
        return int(value)


class AutoInteger(Kind):
    """A whole number from `lowest` to `highest`, or the word `auto`, which is None."""

    metavar = "auto|N"
    _auto = "auto"

    def __init__(self, lowest: int, highest: int) -> None:
        self._integer = Integer(lowest, highest)

    @property
    def bounds(self) -> str:
        """See Kind."""
        return self._integer.bounds

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{self._auto} or {self._integer.allowed}"

    def parse(self, value: object) -> float | None:
        """See Kind."""
        return None if value == self._auto else self._integer.parse(value)

    def show(self, value: object) -> str:
        """See Kind."""
        return self._auto if value is None else self._integer.show(value)


class Size(Integer):
    """A number of bytes from `lowest` to `highest`; as text also in KiB, MiB or GiB."""

    metavar = "SIZE"
    _text = re.compile(r"([0-9]{1,19})(KiB|MiB|GiB)?", re.ASCII)
    _units: ClassVar[dict[str, int]] = {"GiB": GIBIBYTE, "MiB": MEBIBYTE, "KiB": KIBIBYTE}

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{self.bounds}, in bytes or as in 64KiB, 8MiB, 1GiB"

    def _read(self, match: re.Match[str]) -> int:
        return int(match[1]) * self._units.get(match[2], 1)

    def show(self, value: object) -> str:
        """See Kind."""
        assert isinstance(value, int)
        for unit, unit_bytes in self._units.items():
            if value and value % unit_bytes == 0:
                return f"{value // unit_bytes}{unit}"
        return str(value)


class Duration(Number):
    """Seconds from `lowest` to `highest`, whole or decimal."""

    metavar = "SECONDS"
    _text = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,19})?", re.ASCII)
    _types = (int, float)

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{self.bounds} seconds, as in 30 or 0.5"

    def _number(self, value: str | float) -> float:
        return float(value)

    def show(self, value: object) -> str:
        """See Kind."""
        return str(value).removesuffix(".0")


class Part(Duration):
    """A part of a whole, from `lowest` to `highest`."""

    metavar = "PART"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{self.bounds}, as in 1 or 0.01"


class Switch(Kind):
    """True or false."""

    metavar = "BOOLEAN"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return "true or false"

    def parse(self, value: object) -> bool:
        """See Kind."""
        if isinstance(value, bool):
            return value
        if value == "true":
            return True
        if value == "false":
            return False
        raise DisallowedValueError

    def show(self, value: object) -> str:
        """See Kind."""
        return "true" if value else "false"


class Choice(Kind):
    """One of several words."""

    metavar = "WORD"

    def __init__(self, *words: str) -> None:
        self.words = words

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"one of {', '.join(self.words)}"

    def parse(self, value: object) -> str:
        """See Kind."""
        if not isinstance(value, str) or value not in self.words:
            raise DisallowedValueError
        return value


class FilePath(Kind):
    """The path of a file, or none; whether it is there is seen when it is used."""

    metavar = "FILE"
    longest = 4096

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"a path of at most {self.longest} bytes, in UTF-8 and without control characters"

    def parse(self, value: object) -> str | None:
        """See Kind."""
        if value == "":
            return None
        if not isinstance(value, str) or any(char < " " or char == "\x7f" for char in value):
            raise DisallowedValueError
        try:
            length = len(value.encode())
        except UnicodeEncodeError:
            # Settings that change are sent to the worker processes as UTF-8.
            raise DisallowedValueError from None
        if length > self.longest:
            raise DisallowedValueError
        return value

    def show(self, value: object) -> str:
        """See Kind."""
        return "" if value is None else str(value)


class RequiredFile(FilePath):
    """The path of a file, or `none`, which has to be said: a variable that is empty by mistake does not mean that."""

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"none, or {super().allowed}"

    def parse(self, value: object) -> str | None:
        """See Kind."""
        if value == "":
            raise DisallowedValueError
        return None if value == "none" else super().parse(value)

    def show(self, value: object) -> str:
        """See Kind."""
        return super().show(value) or "none"


class FileMode(Kind):
    """The permissions of a file, in octal digits as chmod(1) takes them."""

    metavar = "MODE"
    _text = re.compile(r"0?[0-7]{3}", re.ASCII)

    @property
    def allowed(self) -> str:
        """See Kind."""
        return "three octal digits, with or without a 0 before them, in quotes in the file"

    def parse(self, value: object) -> int:
        """See Kind."""
        # TOML has no octal numbers that begin like this, and its 660 is not meant in decimal.
        if not isinstance(value, str) or not self._text.fullmatch(value):
            raise DisallowedValueError
        return int(value, 8)

    def show(self, value: object) -> str:
        """See Kind."""
        return f"{value:04o}"


class Owner(Kind):
    """A user, a group or both, or neither; whether there are such is seen when the owner is set."""

    metavar = "USER[:GROUP]"
    longest = 256

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"USER, USER:GROUP or :GROUP, names or numbers, at most {self.longest} bytes without white space and "
            "control characters"
        )

    def parse(self, value: object) -> SocketOwner | None:
        """See Kind."""
        if value == "":
            return None
        if not isinstance(value, str) or any(char <= " " or char == "\x7f" for char in value):
            raise DisallowedValueError
        user, colon, group = value.partition(":")
        if bool(colon) != bool(group) or ":" in group:
            raise DisallowedValueError
        try:
            length = len(value.encode())
        except UnicodeEncodeError:
            raise DisallowedValueError from None
        if length > self.longest:
            raise DisallowedValueError
        return SocketOwner(user, group)

    def show(self, value: object) -> str:
        """See Kind."""
        if value is None:
            return ""
        assert isinstance(value, SocketOwner)
        return f"{value.user}:{value.group}" if value.group else value.user


class MediaType(Kind):
    """A Content-Type of printable ASCII: type/subtype and parameters (RFC 9110 8.3.1)."""

    metavar = "TYPE"
    longest = 256
    _token = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    _text = re.compile(rf"{_token}/{_token}(?: *;[ -~]*)?", re.ASCII)

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"type/subtype with or without parameters, printable ASCII, at most {self.longest} bytes"

    def parse(self, value: object) -> str:
        """See Kind."""
        if not isinstance(value, str) or len(value) > self.longest or not self._text.fullmatch(value):
            raise DisallowedValueError
        return value


def escaped(value: object) -> str:
    """Return a value from outside as one printable line of ASCII, a text in quotes; a long one is cut."""
    try:
        text = ascii(value)
    except ValueError:
        # Python refuses to write out an integer of thousands of digits, and TOML can hold one in hexadecimal.
        return "(a number too long to show)"
    return text if len(text) <= LONGEST_SHOWN_VALUE else f"{text[:LONGEST_SHOWN_VALUE]}..."


def printable(text: str) -> str:
    """Return a text from outside as one printable line of ASCII; a long one is cut."""
    return escaped(text)[1:-1]
