"""What the master does of a child that has ended."""

from __future__ import annotations

import mmap
import os
import time

from gatewayx.server import children
from gatewayx.server.board import Board, Phase, Record, board_bytes


def record() -> Record:
    """That of a child, in memory of its own."""
    return Board(mmap.mmap(-1, board_bytes(0)), 0, 0).admin


def test_what_an_ended_child_has_used_is_never_there_twice(monkeypatch):
    seen = []

    class Watched(Record):
        """Looks at each step, as the admin process might."""

        def set_phase(self, phase: Phase, process_id: int = 0) -> None:
            """See Record."""
            super().set_phase(phase, process_id)
            seen.append((self.ended_cpu_s > 0, self.process_id > 0))

        def add_cpu(self, used_s: float) -> None:
            """See Record."""
            super().add_cpu(used_s)
            seen.append((self.ended_cpu_s > 0, self.process_id > 0))

    monkeypatch.setattr("gatewayx.server.board.Record", Watched)
    post = children.Post("a child", record())

    def work(*_: object) -> None:
        began_s = time.process_time()
        while time.process_time() - began_s < 0.02:
            pass
        os._exit(0)

    post.fork(work)
    process_id, status, used = os.wait4(post.child.process_id, 0)
    assert process_id == post.child.process_id
    post.take_end(status, used, time.monotonic())
    assert seen == [(False, True), (False, False), (True, False)]


def test_what_all_have_used_does_not_fall_when_one_ends():
    of_child = record()
    assert of_child.shown_cpu_s(of_child.ended_cpu_s + 2.0) == 2.0
    # It has ended, and the master has not counted it yet.
    assert of_child.shown_cpu_s(of_child.ended_cpu_s + 0.0) == 2.0
    of_child.add_cpu(2.5)
    assert of_child.shown_cpu_s(of_child.ended_cpu_s + 0.0) == 2.5


def test_a_child_began_when_it_was_forked_whatever_it_is_later():
    of_child = record()
    assert of_child.begun_s == 0
    of_child.set_phase(Phase.STARTING, 1)
    begun_s = of_child.begun_s
    assert begun_s == of_child.since_s > 0
    for phase in (Phase.READY, Phase.ABORTED):
        of_child.set_phase(phase)
        assert of_child.begun_s == begun_s < of_child.since_s
    of_child.set_phase(Phase.AWAY)
    assert of_child.begun_s == 0
