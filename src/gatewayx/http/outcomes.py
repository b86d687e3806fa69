"""How requests end, for those who count and tell: each with the status that the client was answered."""

from __future__ import annotations

from gatewayx.http.problems import PROBLEMS

# nginx's code for a client that is gone before its answer; it is never sent.
CLIENT_GONE_STATUS = 499

# By the number that stands for each in core/metrics; further ones come at the end.
OUTCOMES: tuple[tuple[str, int], ...] = (
    ("ok", 200),
    # The answer to OPTIONS.
    ("ok", 204),
    # WORK_EXCEPTION, whose data is the answer.
    ("exception", 500),
    # What these are with --plugin-compat.
    ("exception", 200),
    ("job-failed", 200),
    ("client-gone", CLIENT_GONE_STATUS),
    # The rest of an answer that had begun never came.
    ("answer-cut", 200),
    # A job that is kept was taken, or has not ended; and whoever asks for it knows what it is at.
    ("ok", 202),
    ("ok", 304),
    *((problem.kind, problem.status) for problem in PROBLEMS),
)

# Of the problems, in their order, the first one's.
FIRST_PROBLEM = 9
OK, NO_CONTENT, EXCEPTION, COMPAT_EXCEPTION, COMPAT_FAIL, CLIENT_GONE = range(6)
ANSWER_CUT, ACCEPTED, NOT_MODIFIED = range(6, FIRST_PROBLEM)
OUTCOME_OF_PROBLEM: dict[str, int] = {problem.kind: FIRST_PROBLEM + index for index, problem in enumerate(PROBLEMS)}
