"""What settings mean: answers, browsers, the admin address and logs."""

from __future__ import annotations

from gatewayx.config.address_kinds import HostList, OptionalAddress, OriginList, ServedHostList
from gatewayx.config.kinds import Choice, FilePath, MediaType, Part, Switch
from gatewayx.config.setting import Setting

ANSWER_SETTINGS: tuple[Setting, ...] = (
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
        "origin",
        "origin",
        OriginList(),
        "Browsers",
        "An origin whose pages may ask, and see the answers (CORS); may be repeated, * for all. Requests of others "
        "are answered 403. Without any, pages of other sites are refused only where they ask for localhost or an "
        "address of loopback, and no proxy has passed it on.",
        "Strimzi Kafka Bridge http.cors.allowedOrigins",
    ),
    Setting(
        "host",
        "host",
        ServedHostList(),
        "Browsers",
        "A name or address by which the gateway is asked for, with whatever port; may be repeated. A request with "
        "another Host, or none, is answered 421. Without any, all names are served.",
        "nginx server_name",
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
