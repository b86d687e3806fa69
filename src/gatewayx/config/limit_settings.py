"""What settings mean: how much, how often and how long: limits, rates, timeouts, and jobs that are kept."""

from __future__ import annotations

from gatewayx.config.kinds import GIBIBYTE, KIBIBYTE, MEBIBYTE, Duration, FilePath, Integer, Size
from gatewayx.config.rate_kinds import FunctionRates, Rate
from gatewayx.config.setting import Setting
from gatewayx.config.settings import LARGEST_WORKLOAD_BYTES

LIMIT_SETTINGS: tuple[Setting, ...] = (
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
        "Client connections of one IPv4 address or IPv6 /64, 0 for any number; a further one is answered 429. With "
        "client-address requests in flight that trusted proxies pass on count for their client's address instead.",
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
        "Requests that a worker process has with others at once, which own their X-Gearman-Unique or keep their job; "
        "and as many again that wait for a job's end or take its events. Beyond: 503.",
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
        "max_batch",
        "max-batch",
        Integer(1, 1_000_000),
        "Limits",
        "Lines of a batch, each a job; a longer one is answered 413.",
        "Amazon SQS: 10; Confluent REST Proxy: 10 by default",
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
        "rate",
        "rate",
        Rate(),
        "Rates",
        "Requests of one IPv4 address or IPv6 /64, so many a second on average and a burst of so many at once, by "
        "default what comes in a second; a further one is answered 429. Any number without it.",
        "nginx limit_req rate, burst: off; Traefik rateLimit average, burst: 1",
    ),
    Setting(
        "function_rate",
        "function-rate",
        FunctionRates(),
        "Rates",
        "Requests for one function, prefix*=N/s for each that begins so; may be repeated. As rate, whoever asks.",
        "AWS API Gateway throttling of a method: rate 10000, burst 5000",
    ),
    Setting(
        "connection_rate",
        "connection-rate",
        Rate(),
        "Rates",
        "Connections of one IPv4 address or IPv6 /64 that are accepted, as rate; a further one is answered 429 and "
        "closed. With client-address those of trusted proxies do not count.",
        "HAProxy src_conn_rate: off",
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
        "kept_timeout_s",
        "kept-timeout",
        Duration(0.01, 7 * 86_400),
        "Kept jobs",
        "How long a job may take that outlives its request, or whose events or data are the answer: for those the "
        "default and the maximum of X-Gearman-Timeout.",
        "AWS Lambda: 900 at most",
    ),
    Setting(
        "kept_ttl_s",
        "kept-ttl",
        Duration(0.01, 7 * 86_400),
        "Kept jobs",
        "How long a kept job and its result are known after its end.",
        "Celery result_expires: 86400; Azure guidelines for status monitors: 24 h at least",
    ),
    Setting(
        "max_kept_jobs",
        "max-kept-jobs",
        Integer(1, 1_000_000),
        "Kept jobs",
        "Jobs kept at once, those that have ended included; a further one is answered 503. Their results and events "
        "have at most a quarter of max-held; beyond, the oldest result of a job that has ended goes.",
    ),
    Setting(
        "max_keys",
        "max-keys",
        Integer(0, 10_000_000),
        "Kept jobs",
        "Idempotency keys known at once, each for kept-ttl after its job's end; a request with a further one is "
        "answered 503. Results that are kept for them share the room of kept jobs; beside that each takes about 1 KiB, "
        "which max-held does not count.",
        "Stripe keeps keys for 24 h at least",
    ),
    Setting(
        "max_status_polls",
        "max-status-polls",
        Integer(1, 1_000_000),
        "Kept jobs",
        "How often in a second each job server is asked for background jobs, whose answers are good for a second; a "
        "request beyond is answered 503. Each question walks a hash chain in the job server.",
    ),
    Setting(
        "id_key",
        "id-key",
        FilePath(),
        "Kept jobs",
        "File with a key by which ids of jobs are signed, 32 hexadecimal digits or more in a line of their own, as "
        "openssl rand -hex 32 makes them; in a second line the key before it, whose ids are still read. Without it a "
        "new one is made at each start. Gateways with the same key read each other's ids of background jobs.",
    ),
)
