"""GCRA in a table that processes share: exact, never too strict, whoever is killed in it and whatever strangers do."""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayx.core.counters import Counters
from gatewayx.core.rates import RATES_BYTES, Rates, alone
from support.gearmand import die_with_parent

SECOND_NS = 10**9
# Uptime of a machine that has been up for a while.
NOW_NS = 10**15
PROCESSES = 4
WAYS = 8
SETS = 65536 // WAYS
SET_BYTES = 2 * WAYS * 8


class Reference:
    """GCRA of one key, in plain numbers."""

    def __init__(self) -> None:
        self.full_again_ns = 0

    def take(self, interval_ns: int, burst: int, now_ns: int) -> tuple[int, int]:
        """As Rates.take_at()."""
        debt_ns = max(0, self.full_again_ns - now_ns)
        wait_ns = debt_ns + interval_ns - burst * interval_ns
        if wait_ns > 0:
            return wait_ns, (burst * interval_ns - debt_ns) // interval_ns
        self.full_again_ns = now_ns + debt_ns + interval_ns
        return 0, (burst * interval_ns - debt_ns - interval_ns) // interval_ns


def keys(count: int, seed: int = 1) -> list[int]:
    """As different keys as their keyed hashes are."""
    chance = random.Random(seed)
    return [chance.getrandbits(64) for _ in range(count)]


def of_one_set(count: int) -> list[int]:
    """Keys that meet in one set of the table, as nobody can choose them who does not know the key of the hash."""
    return [(number << 32) * SETS + 5 + (number << 58) for number in range(1, count + 1)]


def shared() -> mmap.mmap:
    """For all of the test's processes."""
    return mmap.mmap(-1, RATES_BYTES)


def forked(work: Callable[[], None]) -> int:
    """A process that does this; its id."""
    process_id = os.fork()
    if process_id == 0:
        die_with_parent()
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return process_id


def ended(process_ids: list[int]) -> list[int]:
    """Their exit statuses, once they have ended."""
    return [os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]) for process_id in process_ids]


class TestOneKey:
    @settings(max_examples=200, deadline=None)
    @given(
        interval_ns=st.integers(1, 1000 * SECOND_NS),
        burst=st.integers(1, 50),
        steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200)), max_size=60),
    )
    def test_it_is_as_the_definition_says(self, interval_ns, burst, steps):
        rates, reference, now_ns = alone(), Reference(), NOW_NS
        [key] = keys(1)
        for kind, part in steps:
            # From bursts at one time up to many intervals between two.
            now_ns += (0, part, interval_ns * part // 100, interval_ns * burst * part // 100)[kind]
            assert rates.wait_at(key, interval_ns, burst, now_ns) == max(
                0, Reference.take(reference_copy(reference), interval_ns, burst, now_ns)[0]
            )
            assert rates.take_at(key, interval_ns, burst, now_ns) == reference.take(interval_ns, burst, now_ns)

    def test_whoever_waits_as_long_as_told_is_let_in_and_nobody_sooner(self):
        rates = alone()
        for key, interval_ns in zip(keys(50), range(1, 10**8, 2 * 10**6), strict=True):
            while (wait_ns := rates.take_at(key, interval_ns, 3, NOW_NS)[0]) == 0:
                pass
            assert rates.take_at(key, interval_ns, 3, NOW_NS + wait_ns - 1)[0] == 1
            assert rates.take_at(key, interval_ns, 3, NOW_NS + wait_ns)[0] == 0

    def test_what_is_given_back_can_be_had_again(self):
        rates = alone()
        [key] = keys(1)
        assert [rates.take_at(key, 100, 2, NOW_NS) for _ in range(3)] == [(0, 1), (0, 0), (100, 0)]
        assert rates.give_back_at(key, 100, 2, NOW_NS) == 1
        assert rates.take_at(key, 100, 2, NOW_NS) == (0, 0)
        assert [rates.give_back_at(key, 100, 2, NOW_NS) for _ in range(3)] == [1, 2, 2]

    def test_a_rate_that_changes_holds_for_those_who_have_asked_before(self):
        rates = alone()
        [key] = keys(1)
        assert [rates.take_at(key, 100 * SECOND_NS, 5, NOW_NS)[0] == 0 for _ in range(6)] == 5 * [True] + [False]
        # All of the old burst would take 500 s.
        assert rates.take_at(key, SECOND_NS, 2, NOW_NS) == (SECOND_NS, 0)
        assert rates.take_at(key, SECOND_NS, 2, NOW_NS + SECOND_NS) == (0, 0)

    def test_memory_that_is_too_small_is_refused(self):
        with pytest.raises(ValueError, match="too small"):
            Rates(bytearray(RATES_BYTES - 1), Counters())
        with pytest.raises(ValueError, match="too small"):
            Rates(bytearray(RATES_BYTES), Counters(), 64)


def reference_copy(reference: Reference) -> Reference:
    """One that can be asked what would be."""
    found = Reference()
    found.full_again_ns = reference.full_again_ns
    return found


class TestProcesses:
    def test_one_rate_holds_for_all_of_them_together_and_exactly(self):
        memory = shared()
        counts = mmap.mmap(-1, 8 * PROCESSES)
        [key] = keys(1)

        def take_all(place: int) -> None:
            rates = Rates(memory, Counters())
            taken = 0
            for step in range(30_000):
                # Ten an interval of all together, where one may be.
                taken += rates.take_at(key, 1000, 100, NOW_NS + 100 * step)[0] == 0
            struct.pack_into("Q", counts, 8 * place, taken)

        assert ended([forked(lambda place=place: take_all(place)) for place in range(PROCESSES)]) == [0] * PROCESSES
        taken = sum(struct.unpack(f"{PROCESSES}Q", counts))
        # Processes are not equally far, and the latest time is what counts.
        assert taken == 100 + 29_999 * 100 // 1000

    def test_none_is_lost_that_two_take_at_the_same_moment(self):
        memory, counts = shared(), mmap.mmap(-1, 8 * PROCESSES)
        [key] = keys(1)
        all_there, go = os.pipe()

        def take_all(place: int) -> None:
            rates = Rates(memory, Counters())
            os.close(go)
            # Until all of them have been made.
            os.read(all_there, 1)
            taken = sum(rates.take_at(key, 1000, 2_000_000, NOW_NS)[0] == 0 for _ in range(600_000))
            struct.pack_into("Q", counts, 8 * place, taken)

        children = [forked(lambda place=place: take_all(place)) for place in range(PROCESSES)]
        os.close(go)
        assert ended(children) == [0] * PROCESSES
        os.close(all_there)
        assert sum(struct.unpack(f"{PROCESSES}Q", counts)) == 2_000_000

    def test_ten_thousand_keys_over_four_processes_are_exact_within_2_percent(self):
        memory, results = shared(), mmap.mmap(-1, 4 * 10_000 * PROCESSES)
        # The step that each process is at: their clocks go together, as those of one machine do.
        at_step = mmap.mmap(-1, PROCESSES)
        all_keys = keys(10_000)
        interval_ns, burst, ends_ns, steps = SECOND_NS // 5, 5, 4 * SECOND_NS, 80

        def take_all(place: int) -> None:
            chance = random.Random(place)
            rates = Rates(memory, Counters())
            taken = [0] * len(all_keys)
            order = list(range(len(all_keys)))
            for step in range(steps):
                at_step[place] = step
                while min(at_step[:PROCESSES]) < step - 1:
                    time.sleep(0.001)
                chance.shuffle(order)
                for number in order:
                    now_ns = NOW_NS + ends_ns * step // (steps - 1)
                    taken[number] += rates.take_at(all_keys[number], interval_ns, burst, now_ns)[0] == 0
            at_step[place] = steps
            struct.pack_into(f"{len(all_keys)}I", results, 4 * place * len(all_keys), *taken)

        assert ended([forked(lambda place=place: take_all(place)) for place in range(PROCESSES)]) == [0] * PROCESSES
        found = struct.unpack(f"{PROCESSES * len(all_keys)}I", results)
        by_key = [sum(found[number :: len(all_keys)]) for number in range(len(all_keys))]
        allowed = burst + ends_ns // interval_ns
        assert abs(sum(by_key) / (allowed * len(all_keys)) - 1) <= 0.02
        # And not only together: hardly any has one too many or too few.
        assert sum(abs(taken - allowed) > 0.02 * allowed for taken in by_key) <= 0.002 * len(all_keys)

    def test_whoever_is_killed_in_the_middle_leaves_nothing_locked_and_nobody_refused(self):
        memory = shared()
        # Few sets, so that they are always changing each other's entries.
        crowd = of_one_set(24)

        def take_for_ever() -> None:
            rates, chance = Rates(memory, Counters()), random.Random()
            while True:
                rates.take_at(chance.choice(crowd), 50_000, 2, time.monotonic_ns())

        rates, chance = Rates(memory, Counters()), random.Random(3)
        for _ in range(60):
            children = [forked(take_for_ever) for _ in range(2)]
            time.sleep(chance.uniform(0.001, 0.01))
            for child in children:
                os.kill(child, signal.SIGKILL)
            ended(children)
            # After an interval and a burst everybody has all of it again, wherever they stopped.
            later_ns = time.monotonic_ns() + 10 * 50_000
            for key in crowd[:WAYS]:
                assert [rates.take_at(key, 50_000, 2, later_ns)[0] == 0 for _ in range(3)] == [True, True, False]

    def test_half_a_change_of_a_place_passes_for_none(self):
        memory = shared()
        rates = Rates(memory, Counters())
        old, new = of_one_set(2)
        while rates.take_at(old, SECOND_NS, 3, NOW_NS)[0] == 0:
            pass
        words = memoryview(memory).cast("Q")
        [at_word] = [number for number, word in enumerate(words) if word == old]
        # The time is changed first; whoever does it is killed before it has changed the key.
        full_again = words[at_word + WAYS]
        words[at_word + WAYS] = 1 << 6 | new >> 58
        assert [rates.take_at(old, SECOND_NS, 3, NOW_NS)[0] == 0 for _ in range(4)] == [True, True, True, False]
        # Or the one that has the place puts off its time at the last moment, and has lost the place then.
        words[at_word], words[at_word + WAYS] = new, full_again
        assert rates.wait_at(new, SECOND_NS, 3, NOW_NS) == 0
        assert [rates.take_at(new, SECOND_NS, 3, NOW_NS)[0] == 0 for _ in range(4)] == [True, True, True, False]
        assert rates.take_at(old, SECOND_NS, 3, NOW_NS) == (0, 2)


class TestFull:
    def test_the_one_nearest_to_its_expiry_is_forgiven_and_counted(self):
        counters = Counters()
        rates = Rates(bytearray(RATES_BYTES), counters)
        crowd = of_one_set(WAYS + 1)
        for number, key in enumerate(crowd[:WAYS]):
            for _ in range(2 if number == 3 else 5):
                rates.take_at(key, SECOND_NS, 5, NOW_NS)
        assert counters.read()["rates_forgiven"] == 0
        rates.take_at(crowd[WAYS], SECOND_NS, 5, NOW_NS)
        assert counters.read()["rates_forgiven"] == 1
        refused = [rates.wait_at(key, SECOND_NS, 5, NOW_NS) > 0 for key in crowd[:WAYS]]
        assert refused == [number != 3 for number in range(WAYS)]
        assert rates.take_at(crowd[3], SECOND_NS, 5, NOW_NS) == (0, 4)

    def test_expired_ones_are_replaced_without_a_loss(self):
        counters = Counters()
        rates = Rates(bytearray(RATES_BYTES), counters)
        for number, key in enumerate(keys(300_000)):
            rates.take_at(key, SECOND_NS, 1, NOW_NS + number * SECOND_NS // 1000)
        assert counters.read()["rates_forgiven"] == 0

    def test_a_million_addresses_free_nobody_at_the_limit_and_refuse_nobody_who_is_not(self):
        """An attacker asks once from each of a million addresses, which all stay in debt, while others go on asking."""
        counters = Counters()
        rates = Rates(bytearray(RATES_BYTES), counters)
        interval_ns, burst = 10 * SECOND_NS, 5
        # Some ask far too often, some as often as they may; each second 50,000 strangers come, for 20 s.
        greedy, modest = keys(50, seed=2), keys(50, seed=3)
        greedy_taken = modest_refused = stranger_refused = 0
        strangers = iter(keys(1_000_000, seed=4))
        for second in range(20):
            now_ns = NOW_NS + second * SECOND_NS
            for _ in range(10):
                for key in greedy:
                    greedy_taken += rates.take_at(key, interval_ns, burst, now_ns)[0] == 0
                for _ in range(5_000):
                    stranger_refused += rates.take_at(next(strangers), interval_ns, burst, now_ns)[0] > 0
            if second % 10 == 0:
                for key in modest:
                    modest_refused += rates.take_at(key, interval_ns, burst, now_ns)[0] > 0
        assert (modest_refused, stranger_refused) == (0, 0)
        # All places are taken, and nobody has had one more than without the attack: 5 at once, and one after 10 s.
        assert counters.read()["rates_forgiven"] > 900_000
        assert rates.keys(now_ns) == 65_536
        assert greedy_taken == len(greedy) * (burst + 1)

    def test_with_a_burst_of_one_they_free_others_now_and_then(self):
        """The worst case: nobody is further away from its expiry than a stranger."""
        counters = Counters()
        rates = Rates(bytearray(RATES_BYTES), counters)
        [greedy] = keys(1, seed=2)
        taken = 0
        for number, stranger in enumerate(keys(1_000_000, seed=4)):
            rates.take_at(stranger, 10 * SECOND_NS, 1, NOW_NS + number * 20_000)
            taken += number % 10 == 0 and rates.take_at(greedy, 10 * SECOND_NS, 1, NOW_NS + number * 20_000)[0] == 0
        # It may have 2 in 20 s; it is forgiven once for about 65,536 strangers, which makes 15 more of 100,000.
        assert 2 <= taken <= 25
