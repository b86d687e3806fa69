"""TLS handshakes that are begun and left, by the ten thousand, and what good clients notice.

    python benchmarks/handshake_flood.py [--rounds 5] [--count 10000] [--rate 0] [--key ecdsa|rsa] [--strict]

A flood connects as fast as it can and sends a ClientHello over each connection: `waits` stays until the gateway ends
it, `leaves` closes at once. Good traffic is wrk with 8 kept connections, by TLS or plainly; each turn is measured calm,
and then from the flood's start on for as long. The bar is the median of the rounds' own ratios: the p99 of good traffic
in the flood is at most 3 times that of the calm. Told beside it: how much more private memory the gateway had at most;
and the same once more with the flood `elsewhere`, at a server of its own that only accepts. What is slower then has
waited for a processor, since flood, wrk and job server stand on the gateway's machine.
"""

import argparse
import ssl
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trustme
from flood_watch import Flood, Sampler
from servers import GATEWAY_COMMAND, compile_program, start_gateway, start_null_job_server, start_sink
from shapes import SMALL, head_format

from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    HOST,
    MIB,
    TIMES,
    BenchmarkError,
    Load,
    ProcessSet,
    Row,
    at_most,
    in_turns,
    information,
    raise_open_file_limit,
    require_programs,
    run_tag,
    run_wrk,
    text_table,
    write_report,
)

GOOD_CONNECTIONS = 8
KINDS = {"waits": "standard-input", "leaves": "standard-input-and-leave"}
# Open at once; the gateway keeps fewer handshakes, and ends the others.
MOST_OPEN = 4000


def client_hello() -> bytes:
    """What a client of OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="gateway.example")
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise BenchmarkError("a client that has shaken hands alone")


@dataclass(frozen=True)
class Turn:
    """Good traffic: calm, in a flood, and while the flood goes elsewhere."""

    calm: Load
    flooded: Load
    elsewhere: Load
    flood: dict[str, Any]
    growth_bytes: int
    """Private memory at its most, beyond that before the flood."""

    def p99_ratio(self) -> float:
        """How much later the slow ones are."""
        return self.flooded.latency_p99_s / self.calm.latency_p99_s

    def machines_ratio(self) -> float:
        """How much of that is so without any work of the gateway for the flood."""
        return self.elsewhere.latency_p99_s / self.calm.latency_p99_s


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """All turns."""
    with tempfile.TemporaryDirectory(prefix="handshakes-") as name, ProcessSet(Path(name)) as processes:
        certificate = Path(name) / "certificate.pem"
        made = trustme.CA().issue_cert(HOST, key_type=trustme.KeyType[arguments.key.upper()])
        made.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        flood = compile_program(processes, "flood.c")
        _, server_port = start_null_job_server(processes)
        tls_port = free_port()
        gateway, port = start_gateway(
            processes,
            f"{arguments.gateway_command} --listen https://{HOST}:{tls_port} --tls-certificate {certificate}",
            server_port,
        )
        gateway.wait_until_listening(tls_port)
        sink_port = start_sink(processes)
        urls = {"by TLS": f"https://{HOST}:{tls_port}/echo", "plainly": f"http://{HOST}:{port}/echo"}
        hello = client_hello()
        found: dict[tuple[str, str], list[Turn]] = {(kind, good): [] for kind in KINDS for good in urls}

        def good_traffic(url: str) -> Load:
            words = [run_tag(), "head", head_format(SMALL, True, port)]
            load = run_wrk(url, BENCHMARKS / "unique_post.lua", words, GOOD_CONNECTIONS, arguments.duration)
            if load.error_count:
                raise BenchmarkError(f"good traffic had errors: {load.errors}")
            return load

        def flooding(port: int, kind: str) -> Flood:
            seconds = arguments.duration + 1
            return Flood(flood, port, KINDS[kind], MOST_OPEN, seconds, arguments.rate, arguments.count, hello)

        def turn(kind: str, good: str) -> None:
            calm = good_traffic(urls[good])
            with flooding(sink_port, kind):
                elsewhere = good_traffic(urls[good])
            before_bytes = gateway.memory().private_bytes
            with flooding(tls_port, kind) as run, Sampler(gateway) as sampler:
                flooded = good_traffic(urls[good])
            made = Turn(calm, flooded, elsewhere, run.report, sampler.peak_bytes() - before_bytes)
            found[kind, good].append(made)
            p99_ms = [1e3 * load.latency_p99_s for load in (calm, flooded, elsewhere)]
            print(
                f"{kind}, good traffic {good}: p99 {p99_ms[0]:.2f} ms calm, {p99_ms[1]:.2f} ms flooded, "
                f"{p99_ms[2]:.2f} ms with the flood elsewhere, {run.report['opened']:,} opened, "
                f"{calm.requests_per_s:,.0f} and {flooded.requests_per_s:,.0f} requests/s",
                flush=True,
            )

        for number in range(arguments.rounds):
            turns: list[Callable[[], None]] = [lambda kind=kind, good=good: turn(kind, good) for kind, good in found]
            in_turns(turns, number)
        rows = []
        for (kind, good), made in found.items():
            title = f"{kind}, good traffic {good}"
            rows += [
                at_most(f"{title}: p99 against calm", [each.p99_ratio() for each in made], 3.0, TIMES, ""),
                information(
                    f"{title}: p99 against calm, flood elsewhere", [each.machines_ratio() for each in made], TIMES, ""
                ),
                information(f"{title}: p99 calm", [1e3 * each.calm.latency_p99_s for each in made], " ms", ""),
                information(f"{title}: memory", [each.growth_bytes / MIB for each in made], " MiB", ""),
            ]
        return rows, {f"{kind}, {good}": [asdict(each) for each in made] for (kind, good), made in found.items()}


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=4.0, help="seconds of good traffic")
    parser.add_argument("--count", type=int, default=10_000, help="handshakes that are begun and left")
    parser.add_argument("--rate", type=float, default=0, help="of them a second; 0 for as many as go")
    parser.add_argument("--key", choices=("ecdsa", "rsa"), default="ecdsa", help="kind of the certificate's key")
    parser.add_argument("--gateway-command", default=GATEWAY_COMMAND)
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="directory of the results")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    raise_open_file_limit(3 * MOST_OPEN)
    try:
        require_programs({"wrk": "wrk", "cc": "gcc"})
        rows, raw = measure(arguments)
    except BenchmarkError as error:
        print(f"handshake_flood: {error}", file=sys.stderr)
        return 1
    print(text_table(rows))
    settings = {
        "rounds": arguments.rounds,
        "duration_s": arguments.duration,
        "count": arguments.count,
        "rate": arguments.rate,
        "key": arguments.key,
        "openssl": ssl.OPENSSL_VERSION,
    }
    write_report(arguments.output, f"handshake_flood_{arguments.key}", "Handshakes begun and left", rows, settings, raw)
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
