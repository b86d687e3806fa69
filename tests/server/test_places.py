"""What a place tells of the process that has it, and what all of them share."""

from __future__ import annotations

import os

import pytest

from gatewayx.core.shared import KEPT_BYTES, KEPT_JOBS, KEPT_KEYS
from gatewayx.server.places import KEPT_ENDS, Places, State
from support.gearmand import die_with_parent


class TestMark:
    def test_nobody_is_there_at_first(self):
        assert [place.mark for place in Places(2).rows] == [0, 0]

    def test_each_process_has_another_one(self):
        places = Places(2)
        marks = set()
        for _ in range(50):
            for place in places.rows:
                place.begin()
                assert 0 < place.mark < 2**32
                marks.add(place.mark)
        assert len(marks) == 100

    def test_with_the_process_it_is_gone(self):
        places = Places(2)
        for place in places.rows:
            place.begin()
            place.state = State.SERVING
        stays = places[1].mark
        places[0].end()
        assert [place.mark for place in places.rows] == [0, stays]
        assert [place.state for place in places.rows] == [State.EMPTY, State.SERVING]


class TestKept:
    def test_what_was_told_last_and_nothing_of_one_that_is_gone(self):
        place = Places(1)[0]
        for end in (place.begin, place.end):
            place.tell_kept(2, 3, 4, 5)
            assert (place.kept_jobs, place.event_streams) == ({"queued": 2, "running": 3, "ended": 4}, 5)
            end()
            assert (place.kept_jobs, place.event_streams) == ({"queued": 0, "running": 0, "ended": 0}, 0)

    def test_those_that_had_not_ended_are_lost(self):
        place = Places(1)[0]
        counters = place.counters()
        counters.add("kept_begun", 20)
        for number, name in enumerate(KEPT_ENDS):
            counters.add(name, number)
        lost = counters.read()["kept_lost"]
        place.end()
        counts = counters.read()
        assert sum(counts[name] for name in KEPT_ENDS) == counts["kept_begun"]
        assert counts["kept_lost"] == lost + 20 - sum(range(len(KEPT_ENDS)))
        # The next one there has kept none.
        place.end()
        assert counters.read() == counts

    def test_what_a_process_has_of_the_bounds_is_given_back(self):
        places = Places(2)
        one, two = places.shared(0), places.shared(1)
        for shared, jobs in ((one, 3), (two, 5)):
            assert shared.take(KEPT_JOBS, jobs, 10)
            assert shared.take(KEPT_BYTES, jobs << 20, 10 << 20)
            assert shared.take(KEPT_KEYS, jobs, 10)
        assert not one.take(KEPT_JOBS, 3, 10)
        assert places.shared().give_back(0) == 0
        assert (two.read()["kept_jobs"], two.read()["kept_bytes"], two.read()["kept_keys"]) == (5, 5 << 20, 5)


class TestIdKeys:
    def test_without_others_it_is_one_that_nobody_knows(self):
        one, two = Places(1), Places(1)
        assert one.id_keys == (one.id_key,)
        assert len(one.id_key) == 16
        assert one.id_key != two.id_key

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_process_that_was_forked_before_reads_them(self, count):
        places = Places(3)
        asks, answers = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            die_with_parent()
            while os.read(asks[0], 1):
                os.write(answers[1], b"".join(places.id_keys).ljust(32, b"\0"))
            os._exit(0)
        os.close(asks[0])
        for round_number in range(5):
            places.id_keys = tuple(bytes([round_number * 2 + number + 1]) * 16 for number in range(count))
            os.write(asks[1], b"?")
            assert os.read(answers[0], 32) == b"".join(places.id_keys).ljust(32, b"\0")
        os.close(asks[1])
        # The child has the other end as well.
        os.kill(child, 9)
        os.waitpid(child, 0)
        for descriptor in answers:
            os.close(descriptor)
