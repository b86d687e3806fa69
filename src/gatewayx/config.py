"""Typed settings: defaults < TOML file < GATEWAYX_* environment < flags.

`Settings` holds the values and their defaults; `SETTINGS` describes each of them: what is allowed, what it
means, who set the precedent. The TOML keys, the variables, the flags with their help, the output of
`gatewayx check` and the README's table all come from these two. A setting is called the same everywhere:
flag `--max-body`, key `max-body`, variable `GATEWAYX_MAX_BODY`; only the field in code adds the unit,
`max_body_bytes`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple, NoReturn

import msgspec

from gatewayx.address import Address, AddressError, ServerAddress
from gatewayx.errors import SettingError

KIBIBYTE = 1024
MEBIBYTE = 1024**2
GIBIBYTE = 1024**3

# A Gearman packet's length is a uint32 and counts the function (at most 4 KiB), the unique (63) and two NULs as well.
LARGEST_WORKLOAD_BYTES = 4 * GIBIBYTE - 8 * KIBIBYTE

# As gatewayx.core.budget has it: what is larger counts in the account for bodies or for results, anything else in the
# eighth for what is small.
SMALL_BYTES = 16 * KIBIBYTE
# max-held is at least so many times the largest body, and the largest result; and the largest head with a small body.
HELD_FOR_LARGEST = 4
HELD_FOR_SMALL = 8

VARIABLE_PREFIX = "GATEWAYX_"
CONFIG_FLAG = "--config"
CONFIG_VARIABLE = "GATEWAYX_CONFIG"
CONFIG_HELP = "TOML file with settings; its keys are the flags' names without the dashes."

# Kubernetes sets these in every pod of a namespace that has a Service named gatewayx.
_KUBERNETES_VARIABLE = re.compile(
    r"GATEWAYX_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)

_LONGEST_SHOWN_VALUE = 120
# How a list without entries is shown.
NO_ENTRIES = "none"


class FunctionBound(NamedTuple):
    """How many jobs of a function may be in flight; a name with `*` at its end stands for all that begin so."""

    name: str
    jobs: int


class FunctionServer(NamedTuple):
    """A job server that a function is mapped to; a name with `*` at its end stands for all that begin so."""

    name: str
    server: ServerAddress


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway runs with; `SETTINGS` says what each field means. Times are seconds, sizes are bytes."""

    listen: tuple[Address, ...] = (Address("127.0.0.1", 8080),)
    server: tuple[ServerAddress, ...] = (ServerAddress("127.0.0.1", 4730),)
    connections_per_server: int = 2
    balance: str = "fewest"
    function_server: tuple[FunctionServer, ...] = ()
    require_worker: bool = False
    max_queued: tuple[FunctionBound, ...] = ()
    status_interval_s: float = 2.0
    server_check_interval_s: float = 5.0
    cancel_abandoned: bool = True
    refuse_client_unique: bool = False
    server_ca: str | None = None
    server_certificate: str | None = None
    server_key: str | None = None
    function: tuple[str, ...] = ()
    max_connections: int = 10_000
    max_connections_per_address: int = 0
    max_pipelined: int = 64
    max_jobs: int = 10_000
    max_function_jobs: tuple[FunctionBound, ...] = ()
    max_held_bytes: int = 256 * MEBIBYTE
    max_target_bytes: int = 8 * KIBIBYTE
    max_header_bytes: int = 16 * KIBIBYTE
    max_headers: int = 100
    max_function_bytes: int = 512
    max_chunk_extensions_bytes: int = 4 * KIBIBYTE
    max_body_bytes: int = 8 * MEBIBYTE
    max_result_bytes: int = 64 * MEBIBYTE
    first_byte_timeout_s: float = 10.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    min_body_rate_bytes: int = KIBIBYTE
    body_rate_grace_s: float = 10.0
    keepalive_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    job_timeout_s: float = 30.0
    drain_timeout_s: float = 30.0
    content_type: str = "application/octet-stream"
    plugin_compat: bool = False


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


class AddressList(Kind):
    """One or more distinct HOST:PORT; as text, separated by commas."""

    metavar = "HOST:PORT"
    most = 64

    def __init__(self, lowest_port: int) -> None:
        self.lowest_port = lowest_port

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"1 to {self.most} different HOST:PORT, an IPv6 host in brackets, the port from {self.lowest_port} to 65535"
        )

    def parse(self, value: object) -> tuple[Address | ServerAddress, ...]:
        """See Kind."""
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not 1 <= len(texts) <= self.most:
            raise DisallowedValueError
        addresses = tuple(self._parse_one(text) for text in texts)
        # Port 0 is a different port every time.
        fixed = [(address.host, address.port) for address in addresses if address.port]
        if len(set(fixed)) != len(fixed):
            raise DisallowedValueError
        return addresses

    def _parse_one(self, text: object) -> Address | ServerAddress:
        if not isinstance(text, str):
            raise DisallowedValueError
        try:
            address = self._read(text.strip(" "))
        except AddressError as error:
            raise DisallowedValueError from error
        if address.port < self.lowest_port:
            raise DisallowedValueError
        return address

    def _read(self, text: str) -> Address | ServerAddress:
        return Address.parse(text)

    def show(self, value: object) -> str:
        """See Kind."""
        assert isinstance(value, tuple)
        return ",".join(str(address) for address in value)


class ServerList(AddressList):
    """One or more distinct HOST:PORT with or without one of SERVER_SCHEMES."""

    metavar = "[SCHEME://]HOST:PORT"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{super().allowed}, tls:// before it for TLS, each:// or each+tls:// for each address of a name"

    def _read(self, text: str) -> ServerAddress:
        return ServerAddress.parse(text)


class FunctionList(Kind):
    """None or several distinct function names, `*` at the end of one for any rest; as text, separated by commas."""

    metavar = "NAME"
    most = 1024
    longest = 4096

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
        if len(set(names)) != len(names):
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


class Integer(Kind):
    """A whole number from `lowest` to `highest`."""

    metavar = "N"
    _text = re.compile(r"[0-9]{1,19}", re.ASCII)

    def __init__(self, lowest: int, highest: int) -> None:
        self.lowest = lowest
        self.highest = highest

    @property
    def bounds(self) -> str:
        """See Kind."""
        return f"{self.show(self.lowest)} to {self.show(self.highest)}"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{self.bounds}, a whole number"

    def parse(self, value: object) -> int:
        """See Kind."""
        number = self._read(value) if isinstance(value, str) else value
        # TOML's true would pass as 1.
        if isinstance(number, bool) or not isinstance(number, int) or not self.lowest <= number <= self.highest:
            raise DisallowedValueError
        return number

    def _read(self, text: str) -> int:
        if not self._text.fullmatch(text):
            raise DisallowedValueError
        return int(text)


class Size(Integer):
    """A number of bytes from `lowest` to `highest`; as text also in KiB, MiB or GiB."""

    metavar = "SIZE"
    _text = re.compile(r"([0-9]{1,19})(KiB|MiB|GiB)?", re.ASCII)
    _units: ClassVar[dict[str, int]] = {"GiB": GIBIBYTE, "MiB": MEBIBYTE, "KiB": KIBIBYTE}

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{self.bounds}, in bytes or as in 64KiB, 8MiB, 1GiB"

    def _read(self, text: str) -> int:
        match = self._text.fullmatch(text)
        if match is None:
            raise DisallowedValueError
        return int(match[1]) * self._units.get(match[2], 1)

    def show(self, value: object) -> str:
        """See Kind."""
        assert isinstance(value, int)
        for unit, unit_bytes in self._units.items():
            if value and value % unit_bytes == 0:
                return f"{value // unit_bytes}{unit}"
        return str(value)


class Duration(Kind):
    """Seconds from `lowest` to `highest`, whole or decimal."""

    metavar = "SECONDS"
    _text = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,19})?", re.ASCII)

    def __init__(self, lowest: float, highest: float) -> None:
        self.lowest = lowest
        self.highest = highest

    @property
    def bounds(self) -> str:
        """See Kind."""
        return f"{self.show(self.lowest)} to {self.show(self.highest)}"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{self.bounds} seconds, as in 30 or 0.5"

    def parse(self, value: object) -> float:
        """See Kind."""
        if isinstance(value, str):
            if not self._text.fullmatch(value):
                raise DisallowedValueError
            value = float(value)
        # Compared before the conversion: a huge TOML integer overflows a float. NaN fails the comparison.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.lowest <= value <= self.highest:
            raise DisallowedValueError
        return float(value)

    def show(self, value: object) -> str:
        """See Kind."""
        return str(value).removesuffix(".0")


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
        return f"a path of at most {self.longest} bytes without control characters"

    def parse(self, value: object) -> str | None:
        """See Kind."""
        if value == "":
            return None
        if not isinstance(value, str) or any(char < " " or char == "\x7f" for char in value):
            raise DisallowedValueError
        if len(value.encode(errors="surrogateescape")) > self.longest:
            raise DisallowedValueError
        return value

    def show(self, value: object) -> str:
        """See Kind."""
        return "" if value is None else str(value)


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


class Setting(msgspec.Struct, frozen=True):
    """One setting: everything about it except its default, which is the field's in Settings."""

    # The field of Settings, with the unit as its suffix.
    name: str
    # The TOML key; the flag and the variable are made of it.
    key: str
    kind: Kind
    # The heading in --help.
    group: str
    # One sentence or two, without markup.
    help: str
    # Who else bounds the same thing, and how; empty where nobody does.
    precedent: str = ""

    @property
    def flag(self) -> str:
        """The flag, such as `--max-body`."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable, such as `GATEWAYX_MAX_BODY`."""
        return VARIABLE_PREFIX + self.key.upper().replace("-", "_")

    @property
    def default(self) -> object:
        """The default as the field's type."""
        return getattr(_DEFAULTS, self.name)

    @property
    def default_text(self) -> str:
        """The default as it would be written."""
        return self.kind.show(self.default)

    def parse(self, value: object, origin: str) -> object:
        """Return the value as the field's type; `origin` says where it came from. Raises SettingError."""
        try:
            return self.kind.parse(value)
        except DisallowedValueError:
            raise SettingError(
                f"{self.key} = {_escaped(value)} ({origin}) is not allowed: it must be {self.kind.allowed}"
            ) from None


_DEFAULTS = Settings()
_SIZE = Size(0, 0)

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "listen",
        "listen",
        AddressList(lowest_port=0),
        "Addresses",
        "Where HTTP clients connect; may be repeated. Port 0 lets the kernel choose.",
    ),
    Setting(
        "server",
        "server",
        ServerList(lowest_port=1),
        "Addresses",
        "A Gearman job server; may be repeated. With tls:// it is reached by TLS and never without. With each:// or "
        "each+tls:// every address of the name is a job server of its own, and the name is looked up every 30 s.",
    ),
    Setting(
        "connections_per_server",
        "connections-per-server",
        Integer(1, 64),
        "Job servers",
        "Pipelined connections to each job server.",
    ),
    Setting(
        "balance",
        "balance",
        Choice("fewest", "rotation", "in-order"),
        "Job servers",
        "Which job server gets a job when several may: the one with the fewest outstanding, each in turn, or the first "
        "that is up. Jobs with a client's unique go by their unique.",
        "HAProxy balance leastconn, roundrobin, first; libgearman: in order",
    ),
    Setting(
        "function_server",
        "function-server",
        FunctionServers(),
        "Job servers",
        "A job server for a function, prefix* for all that begin so; may be repeated. Its jobs go to no other; those "
        "of functions without one may go to any.",
        "HAProxy use_backend",
    ),
    Setting(
        "require_worker",
        "require-worker",
        Switch(),
        "Job servers",
        "Answer 503 at once when no job server has a worker for the function.",
    ),
    Setting(
        "max_queued",
        "max-queued",
        QueueBounds(),
        "Job servers",
        "Jobs of a function that wait for a worker, prefix*=N for each that begins so, N alone for every function; may "
        "be repeated. When every job server has so many, a further one is answered 503.",
        "gearmand maxqueue; HAProxy maxqueue",
    ),
    Setting(
        "status_interval_s",
        "status-interval",
        Duration(0.05, 3600),
        "Job servers",
        "How often each job server is asked for its workers and queues.",
    ),
    Setting(
        "server_check_interval_s",
        "server-check-interval",
        Duration(0.05, 3600),
        "Job servers",
        "How often each connection to a job server must give a sign of life; one that is silent for as long again is "
        "replaced.",
        "HAProxy inter: 2",
    ),
    Setting(
        "cancel_abandoned",
        "cancel-abandoned",
        Switch(),
        "Job servers",
        "Ask the job server to drop a foreground job for which nobody waits any more.",
    ),
    Setting(
        "refuse_client_unique",
        "refuse-client-unique",
        Switch(),
        "Job servers",
        "Answer a request with X-Gearman-Unique 400, so that no two requests share a job.",
    ),
    Setting(
        "server_ca",
        "server-ca",
        FilePath(),
        "Job servers",
        "PEM file of the authorities that job servers with tls:// are trusted by; without it the system's.",
        "HAProxy ca-file",
    ),
    Setting(
        "server_certificate",
        "server-certificate",
        FilePath(),
        "Job servers",
        "PEM file of the gateway's certificate for job servers with tls://.",
        "HAProxy crt",
    ),
    Setting(
        "server_key",
        "server-key",
        FilePath(),
        "Job servers",
        "PEM file of the key of server-certificate; without it the key is in the same file.",
    ),
    Setting(
        "function",
        "function",
        FunctionList(),
        "Functions",
        "A function that clients may ask for, prefix* for all that begin so; may be repeated. Others are answered 404; "
        "without any, all may be asked for. gearmand keeps memory for every name it has ever heard.",
        "OpenFaaS, AWS API Gateway: only declared functions",
    ),
    Setting(
        "max_function_jobs",
        "max-function-jobs",
        FunctionBounds(),
        "Functions",
        "Jobs of one function in flight at once, prefix*=N for each that begins so; may be repeated. A further one is "
        "answered 503.",
        "AWS Lambda reserved concurrency",
    ),
    Setting(
        "max_function_bytes",
        "max-function",
        Size(1, 4 * KIBIBYTE),
        "Functions",
        "Longest name of a function, decoded; a longer one is answered 400.",
        "gearmand drops the connection above 8190",
    ),
    Setting(
        "max_connections",
        "max-connections",
        Integer(1, 1_000_000),
        "Limits",
        "Client connections open at once. For a further one the longest idle is closed, or the one that stands "
        "still in an unfinished request; if there is none, it is answered 503.",
        "nginx worker_connections: 512, reusing idle ones; HAProxy maxconn",
    ),
    Setting(
        "max_connections_per_address",
        "max-connections-per-address",
        Integer(0, 1_000_000),
        "Limits",
        "Client connections of one IPv4 address or IPv6 /64, 0 for any number; a further one is answered 429.",
        "nginx limit_conn: off",
    ),
    Setting(
        "max_jobs",
        "max-jobs",
        Integer(1, 10_000_000),
        "Limits",
        "Jobs in flight at once: submitted and not answered; a further one is answered 503.",
        "Envoy max_requests: 1024 a cluster",
    ),
    Setting(
        "max_held_bytes",
        "max-held",
        Size(64 * KIBIBYTE, 1024 * GIBIBYTE),
        "Limits",
        "Bytes held at once for all clients: an eighth for what is at most 16 KiB, three eighths for bodies and their "
        "packets, a half for results and answers not yet read. A body that does not fit is answered 503, a result 502. "
        "At least 4 times max-body and max-result.",
        "Envoy overload manager max_heap_size_bytes: off",
    ),
    Setting(
        "max_pipelined",
        "max-pipelined",
        Integer(1, 1024),
        "Limits",
        "Requests of one client connection in flight at once; further ones are not read until one is answered.",
        "nginx http2_max_concurrent_streams: 128",
    ),
    Setting(
        "max_target_bytes",
        "max-target",
        Size(256, MEBIBYTE),
        "Limits",
        "Longest request target; a longer one is answered 414.",
        "Apache LimitRequestLine: 8190",
    ),
    Setting(
        "max_header_bytes",
        "max-header-bytes",
        Size(KIBIBYTE, MEBIBYTE),
        "Limits",
        "All header lines of one request together, and again its trailers; more is answered 431.",
        "Node.js --max-http-header-size: 16 KiB",
    ),
    Setting(
        "max_headers",
        "max-headers",
        Integer(1, 10_000),
        "Limits",
        "Headers of one request, and again its trailers; more are answered 431.",
        "Apache LimitRequestFields: 100; Envoy, hyper: 100",
    ),
    Setting(
        "max_chunk_extensions_bytes",
        "max-chunk-extensions",
        Size(0, MEBIBYTE),
        "Limits",
        "All chunk extensions of one request together; more is answered 400.",
        "hyper, Go net/http: 16 KiB",
    ),
    Setting(
        "max_body_bytes",
        "max-body",
        Size(1, LARGEST_WORKLOAD_BYTES),
        "Limits",
        "Largest request body; a larger one is answered 413. A Gearman packet ends below 4 GiB.",
        "PHP post_max_size: 8 MiB; nginx client_max_body_size: 1 MiB",
    ),
    Setting(
        "max_result_bytes",
        "max-result",
        Size(1, LARGEST_WORKLOAD_BYTES),
        "Limits",
        "Largest result of one job, all its data together; a larger one is answered 502.",
    ),
    Setting(
        "first_byte_timeout_s",
        "first-byte-timeout",
        Duration(0.01, 3600),
        "Timeouts",
        "From accept to a connection's first byte, after which it is closed without an answer.",
        "HAProxy timeout http-request, advised: 10; nginx client_header_timeout: 60",
    ),
    Setting(
        "header_timeout_s",
        "header-timeout",
        Duration(0.01, 3600),
        "Timeouts",
        "From a request's first byte to the end of its head, after which it is answered 408.",
        "Apache RequestReadTimeout: 20 to 40; nginx client_header_timeout: 60",
    ),
    Setting(
        "body_timeout_s",
        "body-timeout",
        Duration(0.01, 86_400),
        "Timeouts",
        "An unfinished body of which no byte comes for this long is answered 408.",
        "nginx client_body_timeout: 60, between two reads",
    ),
    Setting(
        "min_body_rate_bytes",
        "min-body-rate",
        Size(0, GIBIBYTE),
        "Timeouts",
        "Bytes a second that an unfinished body must average, framing included, once it took longer than "
        "body-rate-grace; a slower one is answered 408. 0 for any.",
        "Apache RequestReadTimeout MinRate: 500; Kestrel: 240",
    ),
    Setting(
        "body_rate_grace_s",
        "body-rate-grace",
        Duration(0.01, 86_400),
        "Timeouts",
        "How long a body may take at any rate.",
        "Apache RequestReadTimeout: 20; Kestrel: 5",
    ),
    Setting(
        "keepalive_timeout_s",
        "keepalive-timeout",
        Duration(0.01, 86_400),
        "Timeouts",
        "An idle client connection is closed after this long.",
        "nginx keepalive_timeout: 75",
    ),
    Setting(
        "write_timeout_s",
        "write-timeout",
        Duration(0.01, 86_400),
        "Timeouts",
        "A client that takes no byte of its answer for this long is disconnected.",
        "nginx send_timeout: 60",
    ),
    Setting(
        "job_timeout_s",
        "job-timeout",
        Duration(0.01, 86_400),
        "Timeouts",
        "How long a request waits for its job before 504: the default and the maximum of X-Gearman-Timeout.",
        "nginx proxy_read_timeout: 60",
    ),
    Setting(
        "drain_timeout_s",
        "drain-timeout",
        Duration(0, 86_400),
        "Timeouts",
        "How long requests in flight are waited for after SIGTERM, SIGINT or SIGQUIT.",
        "Kubernetes terminationGracePeriodSeconds: 30",
    ),
    Setting(
        "content_type",
        "content-type",
        MediaType(),
        "Answers",
        "Content-Type of job results.",
    ),
    Setting(
        "plugin_compat",
        "plugin-compat",
        Switch(),
        "Answers",
        "Take requests and answer them as gearmand's HTTP plugin does where gatewayx differs on purpose: values in any "
        "case, queries as part of the name, unique - when none is given, 200 for failed jobs, empty error bodies.",
    ),
)


class Loaded(msgspec.Struct, frozen=True):
    """The effective settings and where each of them came from."""

    settings: Settings
    # Setting name → `default`, `file PATH`, `environment VARIABLE` or `flag --FLAG`.
    origins: Mapping[str, str]


def load(config_path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Loaded:
    """Combine defaults, TOML file, environment and flags into the effective settings.

    `config_path` is the value of --config; without it GATEWAYX_CONFIG in `environ` is used. `flags` maps
    setting names to the values given on the command line; None and an empty tuple mean not given.
    Every value on every level must be sound, an overridden one too. Raises SettingError.
    """
    values: dict[str, object] = {}
    origins = {setting.name: "default" for setting in SETTINGS}

    def apply(setting: Setting, value: object, origin: str) -> None:
        values[setting.name] = setting.parse(value, origin)
        origins[setting.name] = origin

    for setting, value, origin in _from_file(config_path, environ):
        apply(setting, value, origin)
    _refuse_unknown_variables(environ)
    for setting in SETTINGS:
        if setting.variable in environ:
            apply(setting, environ[setting.variable], f"environment {setting.variable}")
    for setting in SETTINGS:
        flag_value = flags.get(setting.name)
        if isinstance(flag_value, tuple):
            flag_value = setting.kind.from_flags(flag_value) if flag_value else None
        if flag_value is not None:
            apply(setting, flag_value, f"flag {setting.flag}")
    loaded = Loaded(settings=msgspec.structs.replace(_DEFAULTS, **values), origins=origins)
    _check_function_servers(loaded)
    _check_held(loaded)
    return loaded


def _check_function_servers(loaded: Loaded) -> None:
    for entry in loaded.settings.function_server:
        if entry.server not in loaded.settings.server:
            raise SettingError(
                f"function-server = {_escaped(f'{entry.name}={entry.server}')} ({loaded.origins['function_server']}) "
                f"is not allowed: {entry.server} is none of the job servers ({loaded.origins['server']})"
            )


def _check_held(loaded: Loaded) -> None:
    """Refuse bounds on one request that the accounts of max-held can never hold: every try of it would be told 503.

    A large packet is held twice for a moment, so 1.5 times the largest body must fit the three eighths for bodies and
    twice the largest result the half for results. Whatever is small fits an eighth, with its head.
    """
    settings = loaded.settings
    for name in ("max_body_bytes", "max_result_bytes"):
        most_bytes = settings.max_held_bytes // HELD_FOR_LARGEST
        bound_bytes: int = getattr(settings, name)
        if bound_bytes > most_bytes:
            raise SettingError(
                f"{_told(loaded, name)} is not allowed with {_told(loaded, 'max_held_bytes')}: it must be at most "
                f"{_SIZE.show(most_bytes)}, or max-held at least {_SIZE.show(bound_bytes * HELD_FOR_LARGEST)}"
            )
    small_bytes = min(settings.max_body_bytes, SMALL_BYTES)
    least_bytes = HELD_FOR_SMALL * (settings.max_target_bytes + settings.max_header_bytes + small_bytes)
    if settings.max_held_bytes < least_bytes:
        raise SettingError(
            f"{_told(loaded, 'max_held_bytes')} is not allowed with {_told(loaded, 'max_target_bytes')} and "
            f"{_told(loaded, 'max_header_bytes')}: it must be at least {_SIZE.show(least_bytes)}, of which an eighth "
            f"holds such a head with {_SIZE.show(small_bytes)} of its body"
        )


def _told(loaded: Loaded, name: str) -> str:
    setting = next(setting for setting in SETTINGS if setting.name == name)
    return f"{setting.key} = {setting.kind.show(getattr(loaded.settings, name))} ({loaded.origins[name]})"


def describe(loaded: Loaded) -> str:
    """Return the effective settings as aligned lines of setting, value and origin, under a heading."""
    rows = [("setting", "value", "from")]
    for setting in SETTINGS:
        value = setting.kind.show(getattr(loaded.settings, setting.name)) or NO_ENTRIES
        rows.append((setting.key, value, loaded.origins[setting.name]))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{key:{widths[0]}}  {value:{widths[1]}}  {origin}" for key, value, origin in rows)


def markdown_table() -> str:
    """Return the table of all flags as the README holds it, without a line end after the last row."""
    rows = [
        "| Flag | Variable | Default | Allowed | Meaning |",
        "|---|---|---|---|---|",
        f"| `{CONFIG_FLAG} FILE` | `{CONFIG_VARIABLE}` | none | a readable TOML file | {CONFIG_HELP} |",
    ]
    for setting in SETTINGS:
        flag = setting.flag if isinstance(setting.kind, Switch) else f"{setting.flag} {setting.kind.metavar}"
        precedent = f" ({setting.precedent})" if setting.precedent else ""
        rows.append(
            f"| `{flag}` | `{setting.variable}` | `{setting.default_text or NO_ENTRIES}` | {setting.kind.allowed} "
            f"| {setting.help}{precedent} |"
        )
    return "\n".join(rows)


def _from_file(config_path: Path | None, environ: Mapping[str, str]) -> Iterable[tuple[Setting, object, str]]:
    if config_path is not None:
        path, named_by = config_path, f"flag {CONFIG_FLAG}"
    elif CONFIG_VARIABLE in environ:
        path, named_by = Path(environ[CONFIG_VARIABLE]), f"environment {CONFIG_VARIABLE}"
    else:
        return
    origin = f"file {_printable(str(path))}"
    by_key = {setting.key: setting for setting in SETTINGS}
    for key, value in _read_toml(path, named_by).items():
        if key not in by_key:
            nearest = _nearest(key).key
            raise SettingError(f"{_escaped(key)} ({origin}) is not a setting: the nearest is {nearest}")
        yield by_key[key], value, origin


def _read_toml(path: Path, named_by: str) -> dict[str, object]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    def refuse(reason: str) -> NoReturn:
        shown = _escaped(str(path))
        raise SettingError(f"config = {shown} ({named_by}) {reason}: it must be a readable TOML file") from None

    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        refuse(f"cannot be read, {_printable(getattr(error, 'strerror', None) or str(error))}")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        refuse("is not UTF-8")
    # tomllib lets ValueError (a number of thousands of digits) and RecursionError (deep nesting) through.
    except (ValueError, RecursionError) as error:
        refuse(f"is not TOML, {_printable(str(error))}")


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE}
    for variable in sorted(environ):
        if not variable.startswith(VARIABLE_PREFIX) or variable in known or _KUBERNETES_VARIABLE.fullmatch(variable):
            continue
        nearest = _nearest(variable.removeprefix(VARIABLE_PREFIX)).variable
        raise SettingError(
            f"{_printable(variable)} = {_escaped(environ[variable])} (environment) is not a setting: "
            f"the nearest is {nearest}"
        )


def _nearest(text: str) -> Setting:
    from difflib import SequenceMatcher

    wanted = text.lower().replace("_", "-")[:_LONGEST_SHOWN_VALUE]

    def likeness(setting: Setting) -> float:
        # A field's name is known from code and reports, so it counts as a spelling.
        spellings = (setting.key, setting.name.replace("_", "-"))
        return max(SequenceMatcher(None, wanted, spelling).ratio() for spelling in spellings)

    return max(SETTINGS, key=likeness)


def _escaped(value: object) -> str:
    try:
        text = ascii(value)
    except ValueError:
        # Python refuses to write out an integer of thousands of digits, and TOML can hold one in hexadecimal.
        return "(a number too long to show)"
    return text if len(text) <= _LONGEST_SHOWN_VALUE else f"{text[:_LONGEST_SHOWN_VALUE]}..."


def _printable(text: str) -> str:
    return _escaped(text)[1:-1]
