"""What the gateway refuses, how jobs and handshakes end, what becomes of keys: by the counts of core/counters."""

from __future__ import annotations

# A reason, which is a label's value and a field of /status, to the count.
REFUSALS = {
    "connections": "connections_refused",
    "descriptors": "connections_unserved",
    "evicted": "connections_evicted",
    "write-timeout": "writes_timed_out",
    "requests": "requests_refused",
    "admission": "admission_refused",
    "budget": "budget_refused",
    "slow-arrivals": "arrivals_ended",
    "slow-readers": "answers_ended",
    "cut-answers": "answers_cut",
    "untrusted-proxies": "proxies_untrusted",
    "proxy-headers": "proxy_headers_refused",
}

# How kept jobs end, likewise.
KEPT_ENDS = {
    "succeeded": "kept_succeeded",
    "failed": "kept_failed",
    "cancelled": "kept_cancelled",
    "lost": "kept_lost",
    "timeout": "kept_timed_out",
}

# What becomes of requests that have an idempotency key, likewise.
KEY_USES = {
    "begun": "keys_begun",
    "joined": "keys_joined",
    "replayed": "keys_replayed",
    "reused": "keys_reused",
}

# How TLS handshakes of clients end, likewise.
HANDSHAKE_ENDS = {
    "full": "tls_full",
    "resumed": "tls_resumed",
    "failed": "tls_failed",
    "left": "tls_left",
}
