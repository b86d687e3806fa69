"""Totals that processes share: never above their bound, and exact again after one was killed in a change."""

from __future__ import annotations

import mmap
import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from gatewayx.config.settings import Settings
from gatewayx.core.shared import CONNECTIONS, FULL, JOBS, NO_SLOT, Shared, alone, shared_bytes
from support.gearmand import die_with_parent

PLACES = 4
SLOTS = 128
# The mark of a word that is about to count, above the 20 bits of its count.
CLAIMED = 1 << 20


def memory() -> memoryview:
    """For all of the tests' processes."""
    return memoryview(mmap.mmap(-1, shared_bytes(PLACES, SLOTS, 0)))


def at(place: int, shared_memory: memoryview) -> Shared:
    """What the process at a place uses."""
    return Shared(shared_memory, PLACES, place, SLOTS, 0)


def hashed(number: int) -> int:
    """A key, whose low bits are no part of it."""
    return number << 21


class TestTotals:
    def test_a_bound_holds_for_all_places_together(self):
        shared_memory = memory()
        one, two = at(0, shared_memory), at(1, shared_memory)
        assert [one.take(JOBS, 1, 3), two.take(JOBS, 1, 3), one.take(JOBS, 1, 3)] == [True] * 3
        assert not two.take(JOBS, 1, 3)
        assert one.taken(JOBS) == two.taken(JOBS) == 3
        assert one.taken(CONNECTIONS) == 0
        one.give(JOBS, 1)
        assert two.take(JOBS, 1, 3)

    def test_amounts_fit_or_change_nothing(self):
        shared = at(0, memory())
        assert shared.take(JOBS, 90, 100)
        assert not shared.take(JOBS, 11, 100)
        assert shared.take(JOBS, 10, 100)
        assert shared.read()["jobs"] == 100

    def test_a_place_is_given_back_whole_and_alone(self):
        shared_memory = memory()
        one, two = at(0, shared_memory), at(1, shared_memory)
        one.take(JOBS, 5, 100)
        one.take(CONNECTIONS, 1, 100)
        two.take(JOBS, 2, 100)
        assert two.give_back(0) == 0
        assert (two.taken(JOBS), two.taken(CONNECTIONS)) == (2, 0)

    @pytest.mark.parametrize(("places", "place"), [(2, 2), (2, -1)])
    def test_a_place_that_is_none_is_refused(self, places, place):
        with pytest.raises(ValueError, match="there is no place"):
            Shared(memory(), places, place, SLOTS, 0)

    def test_memory_that_is_too_small_is_refused(self):
        with pytest.raises(ValueError, match="too small"):
            Shared(memory()[:-1], PLACES, 0, SLOTS, 0)


class TestKeys:
    def test_each_key_has_its_own_count(self):
        functions = at(0, memory()).functions
        slots = [functions.take(hashed(number), 1) for number in (1, 2, 3)]
        assert len(set(slots)) == 3
        assert [functions.take(hashed(number), 1) for number in (1, 2, 3)] == [FULL] * 3
        functions.give(slots[1])
        assert [functions.taken(hashed(number)) for number in (1, 2, 3)] == [1, 0, 1]
        assert functions.take(hashed(2), 1) == slots[1]

    def test_the_places_share_them(self):
        shared_memory = memory()
        one, two = at(0, shared_memory), at(1, shared_memory)
        slot = one.functions.take(hashed(7), 2)
        assert two.functions.take(hashed(7), 2) == slot
        assert one.functions.take(hashed(7), 2) == FULL
        two.give_back(0)
        assert two.functions.taken(hashed(7)) == 1

    def test_words_are_used_again_by_other_keys(self):
        functions = at(0, memory()).functions
        for number in range(1, 10 * SLOTS):
            slot = functions.take(hashed(number), 1)
            assert slot >= 0
            functions.give(slot)

    def test_a_key_for_which_there_is_no_room_is_told(self):
        functions = at(0, memory()).functions
        # They all begin at the same slot, and there are 64 places from there on.
        keys = [hashed(SLOTS * number) ^ 0 for number in range(1, 5000)]
        taken = [functions.take(key, 5) for key in keys]
        assert NO_SLOT in taken
        assert all(functions.take(key, 5) >= 0 for key, slot in zip(keys, taken, strict=True) if slot >= 0)

    def test_who_claims_a_key_and_has_no_processor_is_waited_for(self):
        shared_memory = memory()
        functions = at(0, shared_memory).functions
        slot = functions.take(hashed(7), 2)
        words = shared_memory.cast("Q")
        [at_word] = [number for number, word in enumerate(words) if word == hashed(7) | 1]
        words[at_word] = hashed(7) | CLAIMED

        def count() -> None:
            time.sleep(0.02)
            words[at_word] = hashed(7) | 1
            signal.pause()

        claims = forked(count)
        try:
            assert functions.take(hashed(7), 2) == slot
            assert functions.taken(hashed(7)) == 2
        finally:
            end(claims)
        # For ever nobody is waited for.
        words[at_word] = hashed(7) | CLAIMED
        assert functions.take(hashed(7), 2) == NO_SLOT

    def test_no_bound_at_all_is_full(self):
        assert at(0, memory()).functions.take(hashed(1), 0) == FULL


def forked(work: Callable[[], None]) -> int:
    """A process that does this until it is killed; its id."""
    process_id = os.fork()
    if process_id == 0:
        die_with_parent()
        try:
            work()
        finally:
            os._exit(1)
    return process_id


def end(process_id: int) -> None:
    """Kill it wherever it is."""
    os.kill(process_id, signal.SIGKILL)
    os.waitpid(process_id, 0)


def hammer(place: int, shared_memory: memoryview, bounds: tuple[int, int], keys: int) -> None:
    """Take and give back for ever, what there is and more."""
    shared = at(place, shared_memory)
    chance = random.Random(os.getpid())
    amounts: list[int] = []
    slots: list[int] = []
    while True:
        if chance.random() < 0.5:
            amount = chance.randrange(1, 4)
            if shared.take(JOBS, amount, bounds[0]):
                amounts.append(amount)
            slot = shared.functions.take(hashed(1 + chance.randrange(keys)), bounds[1])
            if slot >= 0:
                slots.append(slot)
        else:
            if amounts:
                shared.give(JOBS, amounts.pop(chance.randrange(len(amounts))))
            if slots:
                shared.functions.give(slots.pop(chance.randrange(len(slots))))


def test_bounds_hold_and_totals_are_exact_again_whoever_is_killed():
    shared_memory = memory()
    master = at(PLACES - 1, shared_memory)
    bounds = (20, 3)
    keys = 12
    workers = [forked(lambda place=place: hammer(place, shared_memory, bounds, keys)) for place in range(PLACES - 1)]
    intents = 0
    try:
        # Until some were killed between two words that belong together.
        number = 0
        while number < 150 or (not intents and number < 5000):
            place = number % len(workers)
            number += 1
            ends_s = time.monotonic() + 0.005
            while time.monotonic() < ends_s:
                assert master.taken(JOBS) <= bounds[0]
                for key in range(1, keys + 1):
                    assert master.functions.taken(hashed(key)) <= bounds[1]
            end(workers[place])
            workers[place] = 0
            intent = master.give_back(place)
            intents += intent != 0
            while not master.reconcile(intent):
                # Somebody is in the midst of a change, and may be for as long as it has no processor.
                time.sleep(0.0001)
            workers[place] = forked(lambda place=place: hammer(place, shared_memory, bounds, keys))
    finally:
        for process_id in filter(None, workers):
            end(process_id)
    assert intents
    for place in range(len(workers)):
        assert master.reconcile(master.give_back(place))
    assert master.taken(JOBS) == 0
    assert [master.functions.taken(hashed(key)) for key in range(1, keys + 1)] == [0] * keys
    # Nothing is claimed for ever.
    assert all(master.functions.take(hashed(key), 1) >= 0 for key in range(1, keys + 1))


def test_as_many_functions_as_jobs_may_run_have_room_at_once():
    chance = random.Random(14)
    table = alone().functions
    slots = [table.take(chance.getrandbits(64), 1) for _ in range(Settings().max_jobs)]
    assert min(slots) >= 0
    for slot in slots:
        table.give(slot)
    assert table.keys() == 0
