"""The fuzz targets on their seeds, on what fuzzing has found, and on some mutations; `make fuzz` looks further."""

from __future__ import annotations

from types import ModuleType

import pytest

from fuzz import (
    batch_lines,
    forwarded,
    http_connection,
    key_header,
    packet_reader,
    proxy_header,
    request_parser,
    tls_stream,
)
from fuzz.corpus import kept
from fuzz.mutations import run_inputs, run_mutations

# A sanitized build on a busy machine takes minutes for what takes seconds.
pytestmark = pytest.mark.timeout(580)


@pytest.mark.parametrize(
    "target",
    [packet_reader, request_parser, proxy_header, http_connection, tls_stream],
    ids=lambda target: target.__name__,
)
def test_seeds_and_kept_inputs_break_nothing(target: ModuleType) -> None:
    run_inputs(target.one_input, [*target.seeds(), *kept(target.__name__.rpartition(".")[2])])


@pytest.mark.parametrize(
    ("target", "mutations"),
    [
        (packet_reader, 2500),
        (request_parser, 2500),
        (proxy_header, 10_000),
        (forwarded, 2500),
        (key_header, 2500),
        (batch_lines, 1000),
        (http_connection, 250),
        (tls_stream, 1000),
    ],
    ids=lambda value: value.__name__ if isinstance(value, ModuleType) else "",
)
def test_random_mutations_break_nothing(target: ModuleType, mutations: int) -> None:
    run_mutations(target.one_input, target.seeds(), target.TOKENS, mutations, seed=1)
