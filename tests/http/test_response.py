"""What the parts of a response say."""

from __future__ import annotations

import re

import pytest

from gatewayx.http.response import RetryAfter


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def seconds(retry_after: RetryAfter, kind: str = "no-job-server") -> int:
    """The value of one more refusal's header line."""
    matched = re.fullmatch(rb"Retry-After: ([0-9]+)\r\n", retry_after.line(kind))
    assert matched is not None
    return int(matched[1])


class TestRetryAfter:
    @pytest.mark.parametrize("seed", [1, 2, None])
    def test_clients_that_are_refused_together_are_spread_over_1_to_3_s(self, seed):
        retry_after = RetryAfter(Clock(), seed)
        told = [seconds(retry_after) for _ in range(3000)]
        assert set(told) == {1, 2, 3}
        for value in (1, 2, 3):
            assert 800 < told.count(value) < 1200

    def test_two_processes_do_not_say_the_same(self):
        clock = Clock()
        one, other = RetryAfter(clock), RetryAfter(clock)
        assert [seconds(one) for _ in range(100)] != [seconds(other) for _ in range(100)]

    @pytest.mark.parametrize(
        ("lasted_s", "lowest", "highest"), [(9, 1, 3), (20, 2, 6), (50, 5, 15), (100, 10, 30), (100_000, 10, 30)]
    )
    def test_while_nothing_recovers_it_grows_up_to_a_bound(self, lasted_s, lowest, highest):
        clock = Clock()
        retry_after = RetryAfter(clock, 1)
        ends_s = clock.now_s + lasted_s
        while clock.now_s < ends_s:
            seconds(retry_after)
            clock.now_s += 1
        told = {seconds(retry_after) for _ in range(1000)}
        assert told == set(range(lowest, highest + 1))

    def test_one_client_that_comes_when_it_was_told_to_sees_it_grow(self):
        clock = Clock()
        retry_after = RetryAfter(clock, 1)
        told = []
        for _ in range(100):
            told.append(seconds(retry_after))
            clock.now_s += told[-1]
        assert max(told[:3]) <= 3
        assert min(told[-20:]) >= 10

    def test_once_nobody_was_refused_for_a_while_it_is_short_again(self):
        clock = Clock()
        retry_after = RetryAfter(clock, 1)
        for _ in range(200):
            seconds(retry_after)
            clock.now_s += 1
        clock.now_s += 60
        assert {seconds(retry_after) for _ in range(100)} == {1, 2, 3}

    def test_each_kind_counts_for_itself(self):
        clock = Clock()
        retry_after = RetryAfter(clock, 1)
        for _ in range(200):
            seconds(retry_after, "too-many-jobs")
            clock.now_s += 1
        assert {seconds(retry_after, "no-job-server") for _ in range(100)} == {1, 2, 3}
        assert min(seconds(retry_after, "too-many-jobs") for _ in range(100)) >= 10

    def test_a_time_that_is_known_is_told_in_whole_seconds_never_less_and_up_to_a_fifth_more(self):
        retry_after = RetryAfter(Clock())
        for wait_ns, lowest, highest in (
            (1, 1, 1),
            (999_999_999, 1, 2),
            (10**9, 1, 2),
            (10**9 + 1, 2, 2),
            (100 * 10**9, 100, 120),
            (86_400 * 10**9, 86_400, 103_680),
        ):
            lines = [retry_after.exactly(wait_ns) for _ in range(500)]
            found = {int(line.removeprefix(b"Retry-After: ").removesuffix(b"\r\n")) for line in lines}
            assert min(found) >= lowest
            assert max(found) <= highest
            # Those who were refused together do not all come back together.
            assert len(found) >= min(highest - lowest, 20)
