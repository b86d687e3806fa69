"""TLS of the gateway beside nginx's, with one certificate, on one machine and in one run: processor time.

    python benchmarks/tls.py [--rounds 5] [--duration 4] [--key ecdsa|rsa] [--output benchmarks/results] [--strict]

`kept`: POSTs of wrk with one thread over 64 kept connections; the gateway has a background job of each, in front of a
job server that answers at once, and nginx answers 200 with nothing. `handshakes`: a connection with a full handshake
for each request, which is an OPTIONS that the gateway answers by itself, as nginx does. Beside both stand the
gateway's plain port, which tells what TLS costs it, and nginx that ends TLS and passes requests on to that port, which
is what else people do: both processes count then.

Both speak TLS 1.3 with TLS_AES_256_GCM_SHA384, which is looked at first. The bars, which are medians of the rounds' own
ratios: a request over a kept connection costs the gateway at most 1.5 times nginx's processor time, a connection with a
full handshake at most 1.3 times.

`memory`: AT_REST connections of clients that have had small requests, a body of 300 kB and an answer of more than
100 kB, and then nothing; each has at most 24 KiB of private memory. Beside them stand connections that only shook
hands, and plain ones.
"""

import argparse
import http.client
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from servers import GATEWAY_COMMAND, start_gateway, start_nginx, start_null_job_server
from shapes import SMALL, head_format

from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    HOST,
    KIB,
    TIMES,
    BenchmarkError,
    Process,
    ProcessSet,
    Row,
    at_most,
    in_turns,
    information,
    program_version,
    raise_open_file_limit,
    require_programs,
    run_tag,
    run_wrk,
    text_table,
    write_report,
)

CONNECTIONS = 64
LOADS = ("kept", "handshakes")
# Connections whose memory is measured.
AT_REST = 2000
CIPHER = "TLS_AES_256_GCM_SHA384"


@dataclass(frozen=True)
class Turn:
    """What one load has come to."""

    requests_per_s: float
    processor_us: float
    """Processor time of all that serves, for a request."""


class Subject:
    """Some processes that serve at a port."""

    def __init__(self, name: str, url: str, port: int, *processes: Process) -> None:
        self.name = name
        self.url = url
        self.port = port
        self.processes = processes
        self.found: dict[str, list[Turn]] = {load: [] for load in LOADS}

    def turn(self, load: str, duration_s: float) -> None:
        """Measure one load."""
        head = head_format(SMALL, True, self.port)
        if load == "handshakes":
            head = f"OPTIONS /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 20\r\nConnection: close\r\n\r\n"

        def run(seconds: float) -> int:
            words = [run_tag(), "head", head]
            found = run_wrk(f"{self.url}/echo", BENCHMARKS / "unique_post.lua", words, CONNECTIONS, seconds)
            if found.errors["status"] or not found.requests:
                raise BenchmarkError(f"errors under load: {found.errors}")
            return found.requests

        run(1.0)
        before_s = sum(process.cpu_time_s() for process in self.processes)
        requests = run(duration_s)
        used_s = sum(process.cpu_time_s() for process in self.processes) - before_s
        turn = Turn(requests / duration_s, 1e6 * used_s / requests)
        self.found[load].append(turn)
        print(
            f"{self.name}, {load}: {turn.requests_per_s:,.0f} requests/s, {turn.processor_us:.2f} µs a request",
            flush=True,
        )

    def costs(self, load: str) -> list[float]:
        """Processor time of a request, by round."""
        return [turn.processor_us for turn in self.found[load]]


def cipher_at(port: int, authority: Path) -> tuple[str, str]:
    """What is spoken at a port: version and cipher."""
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection((HOST, port)) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connected,
    ):
        cipher = connected.cipher()
        assert cipher is not None
        return str(connected.version()), cipher[0]


def memory(gateway: Process, port: int, tls_port: int, authority: Path) -> list[Row]:
    """Private memory of connections at rest."""
    context = ssl.create_default_context(cafile=str(authority))
    small = head_format(SMALL, True, port).encode() + b"x" * 20
    large = small.split(b"Content-Length")[0] + b"Content-Length: 300000\r\n\r\n" + bytes(300_000)
    document = f"GET /v1/openapi.json HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    kept = []

    def connections(count: int, requests: list[bytes], at: int) -> None:
        for _ in range(count):
            connected = socket.create_connection((HOST, at))
            if at == tls_port:
                connected = context.wrap_socket(connected, server_hostname=HOST)
            kept.append(connected)
            for request in requests:
                connected.sendall(request)
                answer = http.client.HTTPResponse(connected)
                answer.begin()
                answer.read()
                if answer.status != 200:
                    raise BenchmarkError(f"a request was answered {answer.status}")

    def each_kib(requests: list[bytes], at: int) -> float:
        # What comes first makes room for others as well.
        connections(AT_REST // 10, requests, at)
        before_bytes = gateway.memory().private_bytes
        connections(AT_REST, requests, at)
        return (gateway.memory().private_bytes - before_bytes) / AT_REST / KIB

    rows = [
        at_most(
            "memory: a connection at rest after all traffic",
            [each_kib([small, large, document, small], tls_port)],
            24,
            " KiB",
            "private, in user space",
        ),
        information("memory: one that only shook hands", [each_kib([], tls_port)], " KiB", ""),
        information("memory: a plain one after all traffic", [each_kib([small, large, document], port)], " KiB", ""),
    ]
    for connected in kept:
        connected.close()
    return rows


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Processor time of all of them, in turns."""
    with tempfile.TemporaryDirectory(prefix="tls-") as name, ProcessSet(Path(name)) as processes:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(f"{name}/authority.pem")
        certificate = Path(name) / "certificate.pem"
        authority.issue_cert(
            HOST, key_type=trustme.KeyType[arguments.key.upper()]
        ).private_key_and_cert_chain_pem.write_to_path(str(certificate))
        _, server_port = start_null_job_server(processes)
        tls_port = free_port()
        gateway, port = start_gateway(
            processes,
            f"{arguments.gateway_command} --listen https://{HOST}:{tls_port} --tls-certificate {certificate} "
            "--keepalive-timeout 600 --first-byte-timeout 600",
            server_port,
        )
        gateway.wait_until_listening(tls_port)
        nginx, nginx_port = start_nginx(processes, tls=certificate)
        proxy, proxy_port = start_nginx(
            processes,
            'proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection "";',
            f"upstream target {{ server {HOST}:{port}; keepalive 256; }}",
            tls=certificate,
        )
        spoken = {cipher_at(each, Path(name) / "authority.pem") for each in (tls_port, nginx_port, proxy_port)}
        if spoken != {("TLSv1.3", CIPHER)}:
            raise BenchmarkError(f"not all speak the same: {spoken}")
        subjects = [
            Subject("nginx", f"https://{HOST}:{nginx_port}", nginx_port, nginx),
            Subject("gatewayx", f"https://{HOST}:{tls_port}", tls_port, gateway),
            Subject("gatewayx, plain", f"http://{HOST}:{port}", port, gateway),
            Subject("nginx before gatewayx", f"https://{HOST}:{proxy_port}", proxy_port, proxy, gateway),
        ]
        for number in range(arguments.rounds):
            print(f"round {number + 1}", flush=True)
            for load in LOADS:
                turns: list[Callable[[], None]] = [
                    lambda subject=subject, load=load: subject.turn(load, arguments.duration) for subject in subjects
                ]
                in_turns(turns, number)
        rows = memory(gateway, port, tls_port, Path(name) / "authority.pem")
        for load, bar in zip(LOADS, (1.5, 1.3), strict=True):
            beside, own = subjects[0].costs(load), subjects[1].costs(load)
            ratios = [mine / others for mine, others in zip(own, beside, strict=True)]
            rows.append(at_most(f"{load}: processor time of a request, gatewayx against nginx", ratios, bar, TIMES, ""))
            rows += [information(f"{load}: {subject.name}", subject.costs(load), " µs", "") for subject in subjects]
        raw = {
            subject.name: {load: [vars(turn) for turn in subject.found[load]] for load in LOADS} for subject in subjects
        }
        return rows, raw


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=4.0, help="seconds of each load")
    parser.add_argument("--key", choices=("ecdsa", "rsa"), default="ecdsa", help="kind of the certificate's key")
    parser.add_argument("--gateway-command", default=GATEWAY_COMMAND)
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="directory of the results")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    raise_open_file_limit(10_000)
    try:
        require_programs({"wrk": "wrk", "cc": "gcc", "nginx": "nginx-light"})
        rows, raw = measure(arguments)
    except BenchmarkError as error:
        print(f"tls: {error}", file=sys.stderr)
        return 1
    print(text_table(rows))
    settings = {
        "rounds": arguments.rounds,
        "duration_s": arguments.duration,
        "key": arguments.key,
        "cipher": CIPHER,
        "nginx": program_version("nginx", "-v"),
        "openssl": ssl.OPENSSL_VERSION,
    }
    write_report(arguments.output, f"tls_{arguments.key}", "TLS beside nginx", rows, settings, raw)
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
