"""The settings as values: `Settings` holds them and their defaults; config/setting_table says what each means."""

from __future__ import annotations

import msgspec

from gatewayx.address import Address, ListenAddress, ServerAddress, UnixAddress
from gatewayx.config.kinds import GIBIBYTE, KIBIBYTE, MEBIBYTE, FunctionBound, FunctionServer, SocketOwner
from gatewayx.config.rate_kinds import FunctionRate, RateBound

# A Gearman packet's length is a uint32 and counts the function (at most 4 KiB), the unique (63) and two NULs as well.
LARGEST_WORKLOAD_BYTES = 4 * GIBIBYTE - 8 * KIBIBYTE

# Beyond the processors of the largest machines that are sold.
MOST_WORKERS = 512


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway runs with; `SETTINGS` says what each field means. Times are seconds, sizes are bytes."""

    listen: tuple[Address | ListenAddress | UnixAddress, ...] = (Address("127.0.0.1", 8080),)
    socket_mode: int = 0o666
    socket_owner: SocketOwner | None = None
    tls_certificate: tuple[str, ...] = ()
    tls_key: tuple[str, ...] = ()
    tls_min: str = "1.2"
    tls_client_ca: str | None = None
    tls_client_verify: str = "required"
    max_handshakes: int = 1_000
    trusted_proxy: tuple[str, ...] = ()
    client_address: str = "connection"
    server: tuple[ServerAddress, ...] = (ServerAddress("127.0.0.1", 4730),)
    # None is auto.
    workers: int | None = None
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
    # None lets everybody in.
    tokens: str | None = None
    hide_functions: bool = False
    max_connections: int = 10_000
    max_connections_per_address: int = 0
    max_pipelined: int = 64
    max_batch: int = 1_000
    # None is none.
    rate: RateBound | None = None
    function_rate: tuple[FunctionRate, ...] = ()
    connection_rate: RateBound | None = None
    max_jobs: int = 10_000
    max_relayed: int = 1_000
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
    kept_timeout_s: float = 3600.0
    kept_ttl_s: float = 300.0
    max_kept_jobs: int = 10_000
    max_keys: int = 100_000
    max_status_polls: int = 500
    # None is a key that the master makes at the start.
    id_key: str | None = None
    drain_timeout_s: float = 30.0
    worker_timeout_s: float = 30.0
    shutdown_delay_s: float = 0.0
    content_type: str = "application/octet-stream"
    plugin_compat: bool = False
    half_closed: str = "hang-up"
    origin: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    # None is none.
    admin: Address | None = Address("127.0.0.1", 8081)
    admin_host: tuple[str, ...] = ()
    ready_requires: str = "none"
    access_log: str | None = None
    access_log_sample: float = 1.0
    access_log_unique: bool = False
    log_format: str = "text"
    server_timing: bool = False
