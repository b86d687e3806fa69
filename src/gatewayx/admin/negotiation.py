"""Which of several forms of an answer a client wants, by its Accept and Accept-Encoding (RFC 9110 12.5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# What is looked at of one header; the whole head is bounded as well.
MAX_ENTRIES = 64

_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?", re.ASCII)


class Accepted(NamedTuple):
    """An entry of such a header: a name, its parameters in lower case without the weight, and the weight."""

    name: str
    parameters: dict[str, str]
    weight: float


def _entries(header: bytes) -> Iterator[Accepted]:
    for entry in header.decode("latin-1").lower().split(",", MAX_ENTRIES)[:MAX_ENTRIES]:
        name, *parts = (part.strip(" \t") for part in entry.split(";"))
        parameters = {}
        weight = 1.0
        for part in parts:
            key, _, value = part.partition("=")
            if key == "q":
                weight = float(value) if _WEIGHT.fullmatch(value) else 0.0
            else:
                parameters[key] = value.strip('"')
        if name:
            yield Accepted(name, parameters, weight)


class Form(NamedTuple):
    """A media type that can be answered, and the parameters that tell it from others of the same name."""

    name: str
    parameters: dict[str, str]


def _weight_of(form: Form, accepted: Sequence[Accepted]) -> float:
    """The weight of the most specific entry that the form matches; 0 if none does (RFC 9110 12.5.1)."""
    best = (-1, 0.0)
    kind = form.name.partition("/")[0]
    for entry in accepted:
        if entry.name == form.name:
            wanted = {key: value for key, value in entry.parameters.items() if key in form.parameters}
            if any(form.parameters[key] != value for key, value in wanted.items()):
                continue
            found = (2 + len(wanted), entry.weight)
        elif entry.name == f"{kind}/*":
            found = (1, entry.weight)
        elif entry.name == "*/*":
            found = (0, entry.weight)
        else:
            continue
        best = max(best, found)
    return best[1]


def chosen_form(header: bytes | None, forms: Sequence[Form]) -> int:
    """Which of the forms is answered, by its place: the one with the highest weight, of equals the first.

    The first one too if none is accepted: who asks gets something it may not read rather than nothing (as Prometheus
    wants of whoever is scraped).
    """
    if header is None:
        return 0
    accepted = list(_entries(header))
    weights = [_weight_of(form, accepted) for form in forms]
    return max(range(len(forms)), key=lambda place: (weights[place], -place))


def takes_gzip(header: bytes | None) -> bool:
    """Whether the answer may be compressed."""
    if header is None:
        return False
    weights = {entry.name: entry.weight for entry in _entries(header)}
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0
