"""Counters: a C struct on the heap, or in memory that others read."""

from __future__ import annotations

import array
import mmap
import re
from pathlib import Path

import pytest

from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import NAMES, ROW_BYTES, Counters

DECLARATION = Path(__file__).parents[2] / "src/gatewayx/core/counters.pxd"


def test_the_names_are_the_fields_in_their_order():
    struct = DECLARATION.read_text().partition("cdef struct Counts:")[2].partition("cdef class")[0]
    assert tuple(re.findall(r"^    unsigned long long (\w+)$", struct, re.MULTILINE)) == NAMES
    assert len(NAMES) * 8 == ROW_BYTES


def test_a_row_of_its_own_begins_with_zeros():
    assert set(Counters().read().values()) == {0}


def test_a_row_of_shared_memory_goes_on_from_where_it_is():
    memory = mmap.mmap(-1, 2 * ROW_BYTES)
    second = memoryview(memory)[ROW_BYTES:]
    second[:] = array.array("Q", range(len(NAMES))).tobytes()
    counters = Counters(second)
    assert counters.read() == {name: number for number, name in enumerate(NAMES)}
    assert memory[:ROW_BYTES] == bytes(ROW_BYTES)
    assert ByteBudget(1000, counters=counters).counters()["refused"] == NAMES.index("budget_refused")


@pytest.mark.parametrize(
    ("memory", "error"), [(bytes(ROW_BYTES), BufferError), (bytearray(ROW_BYTES - 1), ValueError), (1, TypeError)]
)
def test_what_cannot_hold_a_row_is_refused(memory, error):
    with pytest.raises(error):
        Counters(memory)


def test_memory_is_let_go_with_its_counters():
    memory = bytearray(ROW_BYTES)
    counters = Counters(memory)
    with pytest.raises(BufferError):
        memory.clear()
    del counters
    memory.clear()
