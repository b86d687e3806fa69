"""Starts the servers and workers that are compared: one function each, all on loopback, on ports of their own."""

import os
import shlex
import sys
from pathlib import Path

from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    GEARMAND_TABLE,
    HOST,
    REPOSITORY,
    BenchmarkError,
    Process,
    ProcessSet,
    run_command,
    wait_for_workers,
    which,
)

GATEWAY_COMMAND = "{python} -m gatewayx serve --listen {listen} --server {server}"


def start_gearmand(processes: ProcessSet, options: str) -> tuple[Process, int, int]:
    """A job server with the HTTP plugin; returns it with its Gearman and its HTTP port."""
    port, http_port = free_port(), free_port()
    pid_file = processes.directory / f"gearmand-{port}.pid"
    log = processes.directory / f"gearmand-{port}.gearmand-log"
    command = [which("gearmand") or "gearmand", "-L", HOST, "-p", str(port), "-l", str(log), "-P", str(pid_file)]
    command += ["-r", "http", "--http-port", str(http_port), *GEARMAND_TABLE, *shlex.split(options)]
    process = processes.start("plugin", command)
    process.wait_until_listening(port, http_port)
    return process, port, http_port


def start_plain_gearmand(processes: ProcessSet, port: int, options: str = "") -> Process:
    """A job server without the HTTP plugin, on a port that somebody has chosen, so that it can come back there."""
    log = processes.directory / f"gearmand-{port}.gearmand-log"
    command = [which("gearmand") or "gearmand", "-L", HOST, "-p", str(port), "-l", str(log)]
    command += [*GEARMAND_TABLE, *shlex.split(options)]
    process = processes.start("gearmand", command)
    process.wait_until_listening(port)
    return process


def start_gateway(
    processes: ProcessSet, command: str, server_port: int, clone: Path = REPOSITORY, name: str = "gateway"
) -> tuple[Process, int]:
    """A gateway of the sources in `clone`, with the Python that they are built for when it has one of its own."""
    port = free_port()
    python = clone / ".venv" / "bin" / "python"
    if clone == REPOSITORY or not python.exists():
        python = Path(sys.executable)
    words = shlex.split(command.format(python=python, listen=f"{HOST}:{port}", server=f"{HOST}:{server_port}"))
    if (clone / "src/gatewayx/server/master.py").exists() and "--workers" not in words:
        # One worker process, as what it is compared with has one.
        words += ["--workers", "1"]
    if (clone / "src/gatewayx/server/admin.py").exists() and "--admin" not in words:
        # What is measured is what serves.
        words += ["--admin", "none"]
    python_path = os.pathsep.join(filter(None, [str(clone / "src"), os.environ.get("PYTHONPATH")]))
    process = processes.start(name, words, {"PYTHONPATH": python_path})
    process.wait_until_listening(port)
    return process, port


def start_nginx(
    processes: ProcessSet,
    location: str = "return 200;",
    upstream: str = "",
    more_locations: str = "",
    max_connections: int = 4096,
    tls: Path | None = None,
) -> tuple[Process, int]:
    """nginx with one worker process that answers every request 200 with nothing, or does what `location` says.

    tls: file of a certificate and its key, for clients that speak TLS.
    """
    port = free_port()
    directory = processes.directory / f"nginx-{port}"
    directory.mkdir()
    temporary_paths = "".join(
        f"{module}_temp_path {directory}/{module};" for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = directory / "nginx.conf"
    configuration.write_text(
        # As root it would give itself away, and could not read the script's folder.
        f"daemon off; user root; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log crit;\n"
        f"events {{ worker_connections {max_connections}; }}\n"
        f"http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; {temporary_paths}\n"
        f"  {upstream} server {{ listen {HOST}:{port}; {more_locations} location / {{ {location} }} }} }}\n"
    )
    if tls is not None:
        speaks = f"listen {HOST}:{port} ssl; ssl_certificate {tls}; ssl_certificate_key {tls}; ssl_protocols TLSv1.3;"
        configuration.write_text(configuration.read_text().replace(f"listen {HOST}:{port};", speaks))
    process = processes.start("nginx", [which("nginx") or "nginx", "-c", str(configuration)])
    process.wait_until_listening(port)
    return process, port


def start_nginx_proxy(processes: ProcessSet, target_port: int) -> tuple[Process, int]:
    """nginx that passes every request on to another HTTP server, over kept connections."""
    upstream = f"upstream target {{ server {HOST}:{target_port}; keepalive 256; }}"
    location = 'proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection "";'
    return start_nginx(processes, location, upstream)


def start_nginx_that_waits(processes: ProcessSet, large_bytes: int, body_timeout_s: int) -> tuple[Process, int]:
    """nginx that waits for the body of a request as long as the gateway does, and has a file of large_bytes at /large.

    It has no more to do with the gateway than that it runs on the same machine: what a flood at it costs the gateway's
    good traffic, flooder and kernel cost.
    """
    (processes.directory / "large").write_bytes(bytes(large_bytes))
    # Nobody listens there: with buffering the body is read before anybody is asked.
    waits = f"client_body_timeout {body_timeout_s}s; client_max_body_size 64m; proxy_pass http://{HOST}:1;"
    large = f"location = /large {{ root {processes.directory}; send_timeout 30s; }}"
    return start_nginx(processes, waits, more_locations=large, max_connections=16_000)


def compile_program(processes: ProcessSet, source: str, *libraries: str) -> Path:
    """A C program of this directory, compiled at its first use."""
    program = processes.directory / Path(source).stem
    if not program.exists():
        try:
            run_command(["cc", "-O2", "-o", str(program), str(BENCHMARKS / source), *libraries], timeout_s=60)
        except BenchmarkError as error:
            raise BenchmarkError(f"cannot compile {source}: apt-get install gcc libgearman-dev ({error})") from None
    return program


def start_echo_workers(processes: ProcessSet, server_port: int, function: str, count: int) -> None:
    """libgearman workers."""
    program = compile_program(processes, "echo_worker.c", "-lgearman")
    for _ in range(count):
        processes.start("workers", [str(program), HOST, str(server_port), function])
    wait_for_workers(server_port, function, count)


def start_respawning_echo_workers(processes: ProcessSet, server_port: int, function: str, count: int) -> None:
    """libgearman workers that come back when their job server does, as under any supervisor."""
    program = compile_program(processes, "echo_worker.c", "-lgearman")
    again = 'while :; do "$0" "$@" 2>/dev/null; sleep 0.1; done'
    for _ in range(count):
        processes.start("workers", ["sh", "-c", again, str(program), HOST, str(server_port), function])
    wait_for_workers(server_port, function, count)


def start_raw_worker(processes: ProcessSet, server_port: int, function: str, grabs: int) -> Process:
    command = [sys.executable, str(BENCHMARKS / "raw_worker.py"), "--server", f"{HOST}:{server_port}"]
    process = processes.start("raw-worker", [*command, "--function", function, "--grabs", str(grabs)])
    wait_for_workers(server_port, function, 1)
    return process


def start_sink(processes: ProcessSet) -> int:
    """A server that only accepts, for measuring what a flood itself costs; returns its port."""
    port = free_port()
    program = compile_program(processes, "sink.c")
    processes.start("sink", [str(program), str(port)]).wait_until_listening(port)
    return port


def start_null_job_server(processes: ProcessSet) -> tuple[Process, int]:
    """A job server that answers every submit at once, for measuring a gateway alone."""
    port = free_port()
    program = compile_program(processes, "null_job_server.c")
    process = processes.start("null-job-server", [str(program), HOST, str(port)])
    process.wait_until_listening(port)
    return process, port
