"""What settings mean: where the gateway listens, which job servers and functions it has, and who may ask."""

from __future__ import annotations

from gatewayx.config.address_kinds import ListenList, ServerList
from gatewayx.config.kinds import (
    KIBIBYTE,
    AutoInteger,
    Choice,
    Duration,
    FileMode,
    FilePath,
    FunctionBounds,
    FunctionList,
    FunctionServers,
    Integer,
    Owner,
    QueueBounds,
    RequiredFile,
    Size,
    Switch,
)
from gatewayx.config.setting import Setting
from gatewayx.config.settings import MOST_WORKERS

ROUTE_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "listen",
        "listen",
        ListenList(lowest_port=0),
        "Addresses",
        "Where HTTP clients connect; may be repeated. Port 0 lets the kernel choose. With unix: before a path it is "
        "a unix socket, whose clients have no address. With https:// clients speak TLS; with proxy:// or "
        "proxy+https:// they are trusted proxies whose connections begin with a PROXY header. Sockets that systemd "
        "hands over take the place of the default.",
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
        "tokens",
        "tokens",
        RequiredFile(),
        "Access",
        "TOML file of the tokens of which each request needs one, as gatewayx token new makes them; one that is empty "
        "lets nobody in. It is read anew when it changes. With none nobody needs a token.",
        "nginx auth_basic_user_file; Caddy basic_auth",
    ),
    Setting(
        "hide_functions",
        "hide-functions",
        Switch(),
        "Access",
        "Answer a request for a function that its token does not reach 404, as if there were none, in place of 403.",
        "GitHub: 404 for what a token does not reach",
    ),
)
