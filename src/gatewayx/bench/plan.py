"""What is to be measured, and what the processes that make the load and the one that leads them tell each other.

Every message is one line of JSON. A process gets its plan, says Ready once it has connected, gets a Window, sends a
LoadSnapshot or FloodSnapshot an interval, and at the end a LoadEnd or FloodEnd. It ends early when its input does.
"""

from __future__ import annotations

import ipaddress
import itertools
import secrets
import socket
import string
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from gatewayx.bench.errors import RunError, UseError
from gatewayx.net.ports import accepts

DEFAULT_PORT = 80
HEADER_CONTROLS = frozenset(range(32)) - {9} | {127}
# Loopback addresses that a flood comes from, 127.0.0.2 and up.
FLOOD_SOURCES = 200
PROBE_TIMEOUT_S = 0.5
TAG_CHARACTERS = string.ascii_letters + string.digits + "-_"


@dataclass(frozen=True)
class Target:
    """An http URL, looked up."""

    url: str
    host: str
    """Of the Host header, with the port unless it is 80."""
    address: str
    """In numbers."""
    port: int
    path: str
    """Path and query, as sent."""

    @classmethod
    def parse(cls, url: str, *, allow_remote: bool) -> Target:
        """Read a URL and look its host up. Raises UseError, and RunError if the name is unknown."""
        if "://" not in url:
            url = f"http://{url}"
        try:
            parts = urlsplit(url)
            port = DEFAULT_PORT if parts.port is None else parts.port
        except ValueError as error:
            raise UseError(f"{url!a} is no URL: {error}") from None
        if parts.scheme != "http" or not parts.hostname or parts.username is not None or not port:
            raise UseError(f"{url!a} is not of the form http://HOST[:PORT]/PATH")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # Of the whole URL: urlsplit leaves line ends out without a word, and the host goes into a header.
        if not all(33 <= ord(character) <= 126 for character in url):
            raise UseError(f"{url!a} has characters that must be percent-encoded")
        address = _look_up(parts.hostname, port)
        if not allow_remote and not _is_local(address):
            raise UseError(f"{parts.hostname} ({address}) is not this machine: --allow-remote if it is yours to load")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(url, host if port == DEFAULT_PORT else f"{host}:{port}", address, port, path)

    @property
    def flood_sources(self) -> int:
        """From how many addresses a flood can come: only on IPv4's loopback does the kernel have them all."""
        address = ipaddress.ip_address(self.address.partition("%")[0])
        return FLOOD_SOURCES if address.version == 4 and address.is_loopback else 0


def _look_up(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RunError(f"cannot look up {host!a}: {getattr(error, 'strerror', None) or error}") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    # As clients do: the first that takes a connection (RFC 8305), or the first for the error that it gives.
    return next(
        (address for address in addresses if len(addresses) == 1 or accepts(address, port, PROBE_TIMEOUT_S)),
        addresses[0],
    )


def _is_local(address: str) -> bool:
    """Whether an address is one of this machine's, as the kernel lists them (proc(5))."""
    number = ipaddress.ip_address(address.partition("%")[0])
    # Connecting to the unspecified address reaches this machine.
    if number.is_loopback or number.is_unspecified:
        return True
    try:
        if number.version == 6:
            lines = Path("/proc/net/if_inet6").read_text().splitlines()
            return any(int(line.split()[0], 16) == int(number) for line in lines)
        lines = Path("/proc/net/fib_trie").read_text().splitlines()
    except OSError:
        return False
    return any(
        line.strip() == f"|-- {number}" and "/32 host LOCAL" in following
        for line, following in itertools.pairwise(lines)
    )


@dataclass(frozen=True)
class LoadSettings:
    """The good traffic: as the flags of `gatewayx bench run`, which documents them."""

    connections: int = 64
    duration_s: float = 10.0
    rate: float | None = None
    method: str = "POST"
    body: bytes | None = None
    unique_bodies: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    background: bool = False
    pipeline: int = 1
    processes: int = 1
    timeout_s: float = 10.0
    check: str = "framing"

    def described(self) -> dict[str, object]:
        """For the result: sizes instead of bodies."""
        return {
            "connections": self.connections,
            "duration_s": self.duration_s,
            "rate": self.rate,
            "method": self.method,
            "body_bytes": None if self.body is None else len(self.body),
            "unique_bodies": self.unique_bodies,
            "background": self.background,
            "headers": [f"{name}: {value}" for name, value in self.headers],
            "pipeline": self.pipeline,
            "processes": self.processes,
            "timeout_s": self.timeout_s,
            "check": self.check,
        }


@dataclass(frozen=True)
class FloodSettings:
    """A flood beside the good traffic: as the flags of `gatewayx bench flood`, which documents them."""

    kind: str = "mixed"
    connections: int = 32
    rate: float | None = None
    duration_s: float = 10.0
    calm_s: float = 3.0
    """How long good traffic is measured without the flood, before and after."""

    def described(self) -> dict[str, object]:
        """For the result."""
        return {
            "flood_kind": self.kind,
            "flood_connections": self.connections,
            "flood_rate": self.rate,
            "flood_duration_s": self.duration_s,
            "calm_s": self.calm_s,
        }


class LoadPlan(msgspec.Struct, tag="load", frozen=True):
    """One process's share of the good traffic."""

    address: str
    port: int
    head: bytes
    body: bytes | None
    tag: bytes
    check: str
    connections: int
    pipeline: int
    rate: float
    process: int
    processes: int
    timeout_s: float
    interval_s: float


class FloodPlan(msgspec.Struct, tag="flood", frozen=True):
    """The flood, all of it in one process."""

    address: str
    port: int
    sources: int
    path: bytes
    host: bytes
    kind: str
    connections: int
    rate: float
    interval_s: float


class Window(msgspec.Struct, frozen=True):
    """From when to when to make load, by CLOCK_MONOTONIC, and from when to when there is a flood; 0 without one."""

    begins_ns: int
    ends_ns: int
    flood_begins_ns: int = 0
    flood_ends_ns: int = 0


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """So many connections are up; of the last one that failed the errno, or 0."""

    connected: int
    connect_errno: int


class LoadSnapshot(msgspec.Struct, tag="load", frozen=True):
    """What a process has done up to the end of an interval; `interval` is a histogram's state of that alone."""

    number: int
    at_ns: int
    sent: int
    ended: int
    sent_in_time: int
    good: int
    good_in_time: int
    errors: dict[str, int]
    statuses: dict[str, int]
    sent_bytes: int
    received_bytes: int
    interval: list[int | float]


class PhaseEnd(msgspec.Struct, frozen=True):
    """Of the requests that were due in one phase of a flood: a histogram's state, good answers, failures."""

    latency: list[int | float]
    good: int
    failed: int


class LoadEnd(msgspec.Struct, tag="load-end", frozen=True):
    """The last words: states of histograms, and what the process used from begin to end."""

    snapshot: LoadSnapshot
    latency: list[int | float]
    uncorrected: list[int | float]
    lateness: list[int | float]
    phases: list[PhaseEnd]
    cpu_s: float
    # Ready to run, with no processor free.
    waited_s: float
    elapsed_s: float
    # By errno.
    failed_connects: dict[int, int]
    bad_response: str | None


class FloodSnapshot(msgspec.Struct, tag="flood", frozen=True):
    """What the flood has done up to the end of an interval."""

    opened: int
    open_now: int
    highest_open: int
    closed_silently: int
    resets: int
    failed: int
    statuses: dict[str, int]


class FloodEnd(msgspec.Struct, tag="flood-end", frozen=True):
    """The last words."""

    snapshot: FloodSnapshot
    elapsed_s: float


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The plan cannot be followed; the problem is one line."""

    problem: str


Message = Ready | LoadSnapshot | LoadEnd | FloodSnapshot | FloodEnd | Failed


def request_head(target: Target, settings: LoadSettings) -> bytes:
    """Request line and headers, Content-Length left out. Raises UseError for a header that cannot be sent."""
    if not settings.method.isascii() or not settings.method.isalpha():
        raise UseError(f"{settings.method!a} is no method")
    lines = [f"{settings.method} {target.path} HTTP/1.1"]
    given = {name.lower() for name, _ in settings.headers}
    if given & {"content-length", "transfer-encoding", "connection"}:
        raise UseError("Content-Length, Transfer-Encoding and Connection are set by the load generator")
    if "host" not in given:
        lines.append(f"Host: {target.host}")
    if settings.background:
        lines.append("X-Gearman-Background: true")
    for name, value in settings.headers:
        if not name or not all(
            33 <= ord(character) <= 126 and character not in '()<>@,;:\\"/[]?={}' for character in name
        ):
            raise UseError(f"{name!a} is no header's name")
        if HEADER_CONTROLS & set(map(ord, value)) or any(ord(character) > 255 for character in value):
            raise UseError(f"the value of {name} has characters that no header can have")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


def load_plans(target: Target, settings: LoadSettings, interval_s: float) -> list[LoadPlan]:
    """A plan for each process: connections and rate are divided among them."""
    head = request_head(target, settings)
    body = settings.body
    if body is None and settings.method not in ("GET", "HEAD", "OPTIONS"):
        body = b""
    plans = []
    for process in range(settings.processes):
        share = settings.connections // settings.processes + (process < settings.connections % settings.processes)
        plans.append(
            LoadPlan(
                address=target.address,
                port=target.port,
                head=head,
                body=body,
                tag=_tag(process) if settings.unique_bodies else b"",
                check=settings.check,
                connections=share,
                pipeline=settings.pipeline,
                rate=settings.rate or 0.0,
                process=process,
                processes=settings.processes,
                timeout_s=settings.timeout_s,
                interval_s=interval_s,
            )
        )
    return plans


def _tag(process: int) -> bytes:
    """Eight characters that tell runs apart, the first one the processes of a run: short bodies have room for two."""
    return (TAG_CHARACTERS[process % len(TAG_CHARACTERS)] + secrets.token_hex(4)[1:]).encode()
