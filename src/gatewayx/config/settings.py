"""The settings as data: `Settings` holds the values and their defaults, `SETTINGS` says what each of them means.

The TOML keys, the variables, the flags with their help, the output of `gatewayx check` and the table in
docs/settings.md all come from these two. A setting is called the same everywhere: flag `--max-body`, key `max-body`,
variable `GATEWAYX_MAX_BODY`; only the field in code adds the unit, `max_body_bytes`.
"""

from __future__ import annotations

import msgspec

from gatewayx.address import Address, ServerAddress, UnixAddress
from gatewayx.config.address_kinds import HostList, ListenList, OptionalAddress, ServerList
from gatewayx.config.kinds import (
    GIBIBYTE,
    KIBIBYTE,
    MEBIBYTE,
    AutoInteger,
    Choice,
    DisallowedValueError,
    Duration,
    FileMode,
    FilePath,
    FunctionBound,
    FunctionBounds,
    FunctionList,
    FunctionServer,
    FunctionServers,
    Integer,
    Kind,
    MediaType,
    Owner,
    Part,
    QueueBounds,
    Size,
    SocketOwner,
    Switch,
    escaped,
)
from gatewayx.errors import SettingError

VARIABLE_PREFIX = "GATEWAYX_"

# A Gearman packet's length is a uint32 and counts the function (at most 4 KiB), the unique (63) and two NULs as well.
LARGEST_WORKLOAD_BYTES = 4 * GIBIBYTE - 8 * KIBIBYTE

# Beyond the processors of the largest machines that are sold.
MOST_WORKERS = 512


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway runs with; `SETTINGS` says what each field means. Times are seconds, sizes are bytes."""

    listen: tuple[Address | UnixAddress, ...] = (Address("127.0.0.1", 8080),)
    socket_mode: int = 0o666
    socket_owner: SocketOwner | None = None
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
    max_connections: int = 10_000
    max_connections_per_address: int = 0
    max_pipelined: int = 64
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
    drain_timeout_s: float = 30.0
    worker_timeout_s: float = 30.0
    shutdown_delay_s: float = 0.0
    content_type: str = "application/octet-stream"
    plugin_compat: bool = False
    half_closed: str = "hang-up"
    # None is none.
    admin: Address | None = Address("127.0.0.1", 8081)
    admin_host: tuple[str, ...] = ()
    ready_requires: str = "none"
    access_log: str | None = None
    access_log_sample: float = 1.0
    access_log_unique: bool = False
    log_format: str = "text"
    server_timing: bool = False


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
    # A running gateway takes a change of it, at SIGHUP; else a change needs a restart.
    live: bool = True

    @property
    def flag(self) -> str:
        """The flag, such as `--max-body`."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable, such as `GATEWAYX_MAX_BODY`."""
        return VARIABLE_PREFIX + self.key.upper().replace("-", "_")

    @property
    def change(self) -> str:
        """How a change of it comes about, in a word."""
        return "live" if self.live else "restart"

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
                f"{self.key} = {escaped(value)} ({origin}) is not allowed: it must be {self.kind.allowed}"
            ) from None


_DEFAULTS = Settings()

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "listen",
        "listen",
        ListenList(lowest_port=0),
        "Addresses",
        "Where HTTP clients connect; may be repeated. Port 0 lets the kernel choose. With unix: before a path it is "
        "a unix socket, whose clients have no address. Sockets that systemd hands over take the place of the default.",
        live=False,
    ),
    Setting(
        "socket_mode",
        "socket-mode",
        FileMode(),
        "Addresses",
        "Permissions of the unix sockets of listen: who may write to one may connect.",
        "nginx: 0666; systemd SocketMode: 0666; HAProxy mode: as the umask says",
        live=False,
    ),
    Setting(
        "socket_owner",
        "socket-owner",
        Owner(),
        "Addresses",
        "User and group of the unix sockets of listen; without it those of the gateway.",
        "HAProxy user, group; systemd SocketUser, SocketGroup",
        live=False,
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
        "workers",
        "workers",
        AutoInteger(1, MOST_WORKERS),
        "Processes",
        "Worker processes; auto for one a processor, by the smaller of CPU affinity and cgroup quota, rounded up.",
        "nginx worker_processes: 1; gunicorn workers: 1; Envoy concurrency: one a hardware thread",
        live=False,
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
        "replaced, and its jobs are answered 502.",
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
        "Client connections open at once. For a further one room is made: by one that lingers, the longest idle, or "
        "the one that stands still in an unfinished request, of the same worker process; if there is none, it is "
        "answered 503, and another process makes room for the next.",
        "nginx worker_connections: 512, reusing idle ones; HAProxy maxconn",
        # The table of addresses in the memory that all processes share is made for so many.
        live=False,
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
        "max_relayed",
        "max-relayed",
        Integer(1, 100_000),
        "Limits",
        "Requests that a worker process has with others at once, which own their X-Gearman-Unique; beyond: 503.",
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
        "Apache LimitRequestLine: 8190; nginx large_client_header_buffers: 8 KiB a line",
    ),
    Setting(
        "max_header_bytes",
        "max-header-bytes",
        Size(KIBIBYTE, MEBIBYTE),
        "Limits",
        "All header lines of one request together, and again its trailers; more is answered 431.",
        "Node.js --max-http-header-size: 16 KiB; nginx large_client_header_buffers: 32 KiB",
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
        "hyper, Go net/http: 16 KiB (CVE-2023-39326)",
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
        "Largest result of one job, all its data together; a larger one is answered 502, its rest skipped.",
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
        "HAProxy timeout http-request, advised: 10; Apache RequestReadTimeout: 20 to 40; nginx "
        "client_header_timeout: 60",
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
        "A client connection that is idle between two requests is closed without an answer after this long.",
        "nginx keepalive_timeout: 75",
    ),
    Setting(
        "write_timeout_s",
        "write-timeout",
        Duration(0.01, 86_400),
        "Timeouts",
        "A client that takes no byte of its answer for this long is reset.",
        "nginx send_timeout: 60; h2o: 30",
    ),
    Setting(
        "job_timeout_s",
        "job-timeout",
        Duration(0.01, 86_400),
        "Timeouts",
        "How long a request waits for its job's result, or a background job's acceptance, before 504: the default and "
        "the maximum of X-Gearman-Timeout.",
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
        "worker_timeout_s",
        "worker-timeout",
        Duration(1, 86_400),
        "Timeouts",
        "A worker process whose loop has not turned for so long is ended, with a traceback in the log, and replaced.",
        "gunicorn timeout: 30",
    ),
    Setting(
        "shutdown_delay_s",
        "shutdown-delay",
        Duration(0, 86_400),
        "Timeouts",
        "How long everything is accepted and served as before after SIGTERM, SIGINT or SIGQUIT, so that those in front "
        "notice; the drain begins after it.",
        "Caddy shutdown_delay: 0; HAProxy grace",
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
    Setting(
        "half_closed",
        "half-closed",
        Choice("hang-up", "answer"),
        "Answers",
        "What a client that closes its sending side and not its connection has done: hung up, so that its jobs are "
        "cancelled, or sent its last request, to wait for the answers.",
        "HAProxy option abortonclose; nginx proxy_ignore_client_abort",
    ),
    Setting(
        "server_timing",
        "server-timing",
        Switch(),
        "Answers",
        "Say in each answer how long the gateway and the job took, in milliseconds: Server-Timing: gw;dur=0.2, "
        "job;dur=41.7.",
    ),
    Setting(
        "admin",
        "admin",
        OptionalAddress(),
        "Admin",
        "Where /livez, /readyz, /metrics and /status are answered; none, or --no-admin, for nowhere. If the default "
        "cannot be had, a warning says so and there is none. Whoever can connect may read all of it. Port 0 lets the "
        "kernel choose.",
        "Caddy admin: localhost:2019; Envoy admin",
        live=False,
    ),
    Setting(
        "admin_host",
        "admin-host",
        HostList(),
        "Admin",
        "A name by which the admin address is asked for, beside localhost and addresses; may be repeated. With any "
        "other Host a request there is answered 403.",
        "Caddy admin origins",
    ),
    Setting(
        "ready_requires",
        "ready-requires",
        Choice("none", "any", "all"),
        "Admin",
        "Of how many job servers /readyz requires that they answer. All gateways in front of the same job servers "
        "would be unready together, and clients get no answer of theirs.",
        "Kubernetes: readiness without shared dependencies",
    ),
    Setting(
        "access_log",
        "access-log",
        FilePath(),
        "Logs",
        "File for a line of JSON about each answer, - for standard output; SIGUSR1 opens it anew. None without it.",
        "nginx access_log; gunicorn access_logfile",
    ),
    Setting(
        "access_log_sample",
        "access-log-sample",
        Part(0, 1),
        "Logs",
        "The part of answers with the outcome ok that the access log has, by a hash of the request's id. It has all "
        "others.",
        "Envoy runtime_filter",
    ),
    Setting(
        "access_log_unique",
        "access-log-unique",
        Switch(),
        "Logs",
        "Have the unique in the access log as well, which a client may have made of what it knows of people.",
    ),
    Setting(
        "log_format",
        "log-format",
        Choice("text", "json"),
        "Logs",
        "How events are told on standard error: lines of text, or objects of JSON, one a line.",
        "Caddy format json, console; Traefik log.format",
    ),
)
