"""Names that are told apart, for all processes the same, and durations in their buckets."""

from __future__ import annotations

import bisect
import mmap
import os
import random
import signal
import traceback
from collections.abc import Callable

import pytest

from gatewayx.core import metrics
from gatewayx.core.metrics import BOUNDS_S, METHODS, OTHER_NAME, RESULTS, Metrics, bucket_of, metrics_bytes
from gatewayx.http.outcomes import OUTCOMES
from support.gearmand import die_with_parent

PLACES = 4
MOST_FUNCTIONS = 100
MOST_SERVERS = 128
LONGEST_NAME_BYTES = 512


def at(place: int, memory: mmap.mmap) -> Metrics:
    """What the process at a place uses."""
    return Metrics(memory, PLACES, place)


@pytest.fixture
def memory() -> mmap.mmap:
    """For all of a test's processes."""
    return mmap.mmap(-1, metrics_bytes(PLACES))


def forked(work: Callable[[], object]) -> int:
    """A process that does this."""
    process_id = os.fork()
    if process_id:
        return process_id
    exit_code = 1
    try:
        die_with_parent()
        work()
        exit_code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(exit_code)


class TestBuckets:
    def test_each_bound_is_the_last_of_its_bucket(self):
        for bucket, bound_s in enumerate(BOUNDS_S):
            bound_ns = round(bound_s * 1e9)
            assert (bucket_of(bound_ns), bucket_of(bound_ns + 1)) == (bucket, bucket + 1)

    def test_is_that_of_a_search(self):
        chance = random.Random(7)
        bounds_ns = [round(bound_s * 1e9) for bound_s in BOUNDS_S]
        for _ in range(10_000):
            took_ns = int(10 ** chance.uniform(0, 12))
            assert bucket_of(took_ns) == bisect.bisect_left(bounds_ns, took_ns), took_ns

    @pytest.mark.parametrize("took_ns", [-(10**18), -1, 0])
    def test_nothing_and_less_count_with_the_shortest(self, took_ns):
        assert bucket_of(took_ns) == 0

    def test_years_count_with_the_longest(self):
        assert bucket_of(10**18) == len(BOUNDS_S)


class TestNames:
    def test_nobody_has_a_place_at_first(self, memory):
        found = at(0, memory)
        for names in (found.functions, found.servers):
            assert names.names() == [OTHER_NAME]
            assert names.find(b"reverse") == 0

    def test_a_place_is_kept_and_known_to_all(self, memory):
        functions = at(1, memory).functions
        assert [functions.claim(name) for name in (b"a", b"b", b"a", b'\xff"\\\n')] == [1, 2, 1, 3]
        for place in range(PLACES):
            assert at(place, memory).functions.names() == [OTHER_NAME, b"a", b"b", b'\xff"\\\n']
            assert at(place, memory).functions.find(b"b") == 2
        assert at(0, memory).servers.find(b"a") == 0

    def test_who_has_asked_before_learns_of_it(self, memory):
        early = at(0, memory).functions
        assert early.find(b"late") == 0
        at(3, memory).functions.claim(b"late")
        assert early.find(b"late") == 1

    @pytest.mark.parametrize(("kind", "most"), [("functions", MOST_FUNCTIONS), ("servers", MOST_SERVERS)])
    def test_one_more_than_there_is_room_for_has_none(self, memory, kind, most):
        names = getattr(at(0, memory), kind)
        assert [names.claim(b"%d" % number) for number in range(most)] == list(range(1, most + 1))
        for _ in range(3):
            assert names.claim(b"one more") == 0
        assert names.claim(b"7") == 8
        assert len(names.names()) == 1 + most

    @pytest.mark.parametrize("name", [b"", b"x" * (LONGEST_NAME_BYTES + 1), OTHER_NAME], ids=["empty", "long", "other"])
    def test_what_is_no_name_has_none(self, memory, name):
        names = at(0, memory).functions
        assert names.claim(name) == 0
        assert names.names() == [OTHER_NAME]
        assert names.claim(b"x" * LONGEST_NAME_BYTES) == 1

    def test_processes_that_give_places_at_once_agree_on_them(self, memory):
        wanted = [b"function %d" % number for number in range(20)]

        def claim_all(place: int) -> None:
            names = at(place, memory).functions
            for name in random.Random(place).sample(wanted, len(wanted)):
                assert names.claim(name)

        processes = [forked(lambda place=place: claim_all(place)) for place in range(PLACES)]
        assert {os.waitpid(process_id, 0)[1] for process_id in processes} == {0}
        found = [at(place, memory).functions for place in range(PLACES)]
        assert set(found[0].names()) == {OTHER_NAME, *wanted}
        for name in wanted:
            assert len({names.find(name) for names in found}) == 1

    def test_one_that_is_killed_while_it_gives_places_hinders_nobody(self, memory):
        def claim_for_ever() -> None:
            names = at(1, memory).functions
            number = 0
            while True:
                names.claim(b"%d" % (number % 1000))
                number += 1

        process_id = forked(claim_for_ever)
        names = at(0, memory).functions
        while len(names.names()) < MOST_FUNCTIONS // 2:
            pass
        os.kill(process_id, signal.SIGKILL)
        os.waitpid(process_id, 0)
        told = names.names()
        assert all(name is None or name == OTHER_NAME or name.isdigit() for name in told)
        assert told.count(None) <= 1
        if len(told) <= MOST_FUNCTIONS:
            assert names.claim(b"another")
        assert [found[0] for found in at(0, memory).durations()].count(0) == 1


class TestMemory:
    @pytest.mark.parametrize("place", [-1, PLACES])
    def test_a_place_that_is_none_is_refused(self, memory, place):
        with pytest.raises(ValueError, match="no place"):
            at(place, memory)

    @pytest.mark.parametrize("offset", [-8, 8])
    def test_too_little_of_it_is_refused(self, memory, offset):
        with pytest.raises(ValueError, match="too small"):
            Metrics(memory, PLACES, 0, offset)

    def test_nothing_was_counted_at_first(self):
        found = metrics.alone()
        assert (found.requests(), found.jobs()) == ([], [])
        assert found.durations() == found.job_durations() == [(0, (0,) * (len(BOUNDS_S) + 1), 0.0)]


def test_there_is_room_for_every_outcome():
    assert len(OUTCOMES) <= 128
    assert len(set(OUTCOMES)) == len(OUTCOMES)
    assert all(100 <= status <= 599 for _, status in OUTCOMES)
    assert (len(METHODS), len(RESULTS)) == (7, 10)
