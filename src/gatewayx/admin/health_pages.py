"""/livez and /readyz, as kube-apiserver has them: a word, or a line for each check; or the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl

import orjson

from gatewayx.admin.checks import CHECKS, Check
from gatewayx.admin.negotiation import Form, chosen_form
from gatewayx.admin.times import rfc3339
from gatewayx.http.python_handler import PlainAnswer, PlainRequest

TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"
FORMS = (Form("text/plain", {}), Form("application/json", {}))
# Of a query; more of it is not looked at.
MAX_PARAMETERS = 64


def answer(endpoint: str, checks: Sequence[Check], request: PlainRequest) -> PlainAnswer:
    """The answer to a request for the endpoint, all of its checks."""
    verbose, excluded = _asked(request.query)
    ignored = sorted(excluded - set(CHECKS[endpoint]))
    is_ok = all(check.is_ok for check in checks if check.name not in excluded)
    if _wants_json(request):
        return _json(checks, excluded, is_ok=is_ok)
    if is_ok and not verbose:
        return PlainAnswer(200, TEXT, b"ok")
    lines = [_line(check, excluded) for check in checks]
    if ignored:
        # What is not a check is shown escaped: it comes from outside.
        shown = ", ".join(ascii(name) for name in ignored)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {shown}")
    lines.append(f"{endpoint} check {'passed' if is_ok else 'failed'}")
    return _text(lines, is_ok=is_ok)


def answer_one(endpoint: str, check: Check, request: PlainRequest) -> PlainAnswer:
    """The answer to a request for one check of the endpoint."""
    verbose, _ = _asked(request.query)
    if _wants_json(request):
        return _json([check], frozenset(), is_ok=check.is_ok)
    if check.is_ok and not verbose:
        return PlainAnswer(200, TEXT, b"ok")
    told = "passed" if check.is_ok else "failed"
    return _text([_line(check, frozenset()), f"{endpoint}/{check.name} check {told}"], is_ok=check.is_ok)


def _asked(query: bytes) -> tuple[bool, frozenset[str]]:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return False, frozenset()
    # `?verbose` and `?verbose=...` are the same, as kube-apiserver takes them.
    return any(key == "verbose" for key, _ in pairs), frozenset(value for key, value in pairs if key == "exclude")


def _wants_json(request: PlainRequest) -> bool:
    return chosen_form(request.headers.get(b"accept"), FORMS) == 1


def _line(check: Check, excluded: frozenset[str]) -> str:
    since = f"since {rfc3339(check.since_s)}"
    if check.name in excluded:
        return f"[+]{check.name} excluded: ok"
    if check.is_ok:
        return f"[+]{check.name} ok {since}: {check.detail}"
    return f"[-]{check.name} failed: {check.detail}, {since}"


def _text(lines: list[str], *, is_ok: bool) -> PlainAnswer:
    return PlainAnswer(200 if is_ok else 503, TEXT, "".join(f"{line}\n" for line in lines).encode())


def _json(checks: Sequence[Check], excluded: frozenset[str], *, is_ok: bool) -> PlainAnswer:
    document = {
        "status": "ok" if is_ok else "failed",
        "checks": [
            {
                "name": check.name,
                "status": "excluded" if check.name in excluded else "ok" if check.is_ok else "failed",
                "since": rfc3339(check.since_s),
                "detail": check.detail,
            }
            for check in checks
        ],
    }
    return PlainAnswer(200 if is_ok else 503, JSON, orjson.dumps(document))
