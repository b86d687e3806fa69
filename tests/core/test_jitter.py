"""Chance that is spread as it says."""

from __future__ import annotations

from gatewayx.core.jitter import random_part


def test_every_part_of_the_time_is_as_likely():
    found = [random_part(10.0) for _ in range(20_000)]
    assert all(0 <= seconds < 10 for seconds in found)
    assert len(set(found)) == len(found)
    # A tenth has 2,000 of them; 300 away is seven standard deviations.
    for tenth in range(10):
        assert abs(sum(tenth <= seconds < tenth + 1 for seconds in found) - 2_000) < 300


def test_no_time_has_no_part():
    assert random_part(0.0) == 0.0
