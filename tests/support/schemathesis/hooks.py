"""What schemathesis is told beside the document: which functions there are, and how a batch is made and read."""

from __future__ import annotations

import json
from typing import Any

import schemathesis
from hypothesis import strategies as st

from gatewayx.gateway.operations import KEY
from support.documented import check_line

FUNCTIONS = ["echo", "reverse"]
LINES = "application/x-ndjson"

# What the document leaves to the settings: which functions there are, and that keys are long without tokens.
NARROWER = {
    "function": {"enum": FUNCTIONS},
    "Idempotency-Key": {"pattern": KEY.replace("{1,", "{22,")},
}
ANY_FUNCTION = {"name": "function", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Have requests made for this gateway."""
    for name, schema in NARROWER.items():
        raw_schema["components"]["parameters"][name]["schema"] |= schema
    # Whose answer is the same for any function.
    raw_schema["paths"]["/{function}"]["options"]["parameters"][0] = ANY_FUNCTION


jobs = st.fixed_dictionaries(
    {"function": st.sampled_from(FUNCTIONS), "workload": st.text(max_size=20)},
    optional={
        "id": st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
        "priority": st.sampled_from(["low", "normal", "high", None]),
        "background": st.booleans() | st.none(),
        "timeout": st.none() | st.floats(5, 10),
        "unknown": st.just(1),
    },
)
lines = jobs.map(json.dumps) | st.text(st.characters(exclude_characters="\n"), max_size=10) | st.just("")
schemathesis.openapi.media_type(LINES, st.lists(lines, max_size=5).map("\n".join).map(str.encode))


@schemathesis.deserializer(LINES)
def deserialize_lines(ctx: schemathesis.DeserializationContext, response: schemathesis.Response) -> str:
    """A batch's answer, which is text to OpenAPI."""
    return response.content.decode()


@schemathesis.check
def lines_are_documented(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Each line of a batch's answer is one that the document has."""
    if LINES in response.headers.get("content-type", [""])[0]:
        for line in response.content.splitlines():
            check_line(line)
