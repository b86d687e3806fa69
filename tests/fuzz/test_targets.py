"""The fuzz targets on their seeds and some random mutations of them; `make fuzz` looks further."""

from __future__ import annotations

from types import ModuleType

import pytest

from fuzz import http_connection, packet_reader
from fuzz.mutations import run_mutations


@pytest.mark.parametrize(
    ("target", "mutations"), [(packet_reader, 2500), (http_connection, 500)], ids=["packet_reader", "http_connection"]
)
def test_seeds_and_random_mutations_break_nothing(target: ModuleType, mutations: int) -> None:
    run_mutations(target.one_input, target.seeds(), target.TOKENS, mutations, seed=1)
