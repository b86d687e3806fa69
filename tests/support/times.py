"""How long tests wait: each bound is for what has failed, so that a slow or busy machine meets none of them."""

from __future__ import annotations

# Longer than anything takes in one process; a test that waits for it has failed.
WAIT_S = 45.0
# For processes that begin or end: a sanitized one on a busy machine takes seconds to load.
PROCESS_S = 90.0
# Shorter than the deadlines that the tests' gateways have by default, longer than a busy machine takes: no such was
# waited for.
SOON_S = 25.0
# The part of a deadline that it has waited in any case: it may pass early by as much as the sweep before it was late
# (core/deadlines).
NOT_BEFORE = 0.3
# A worker timeout: a loop that does not turn for so long hangs, and one that is only slow on a busy machine does turn.
HANGS_S = 5
# Instead of the second for which a gateway's start waits for its job servers (gearman/roster), all of which tests' own
# are there: one that answers late would be missed by the first request.
FIRST_ATTEMPT_S = SOON_S
# Those deadlines of gateways in a test's own loop, where a test does not set them: longer than it waits for anything,
# so that who waits for one has failed, and a machine that stands still for seconds meets none.
DEADLINES = dict.fromkeys(
    (
        "first_byte_timeout_s",
        "header_timeout_s",
        "body_timeout_s",
        "body_rate_grace_s",
        "write_timeout_s",
        "job_timeout_s",
        "drain_timeout_s",
        # That of a job server which must give a sign of life.
        "server_check_interval_s",
    ),
    120.0,
)
