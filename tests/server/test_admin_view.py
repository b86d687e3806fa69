"""How often the admin process makes its view of the gateway."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from gatewayx.config.settings import Settings
from gatewayx.server.admin_view import MAKING_PART, Viewer
from gatewayx.server.places import Places


class Clocks:
    """The clocks of a process, which stand still; making a view takes a second of those in `taken`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *taken: str) -> None:
        self.seconds = {"monotonic": 1000.0, "thread_time": 0.0}
        for name in self.seconds:
            monkeypatch.setattr(time, name, lambda name=name: self.seconds[name])
        self.viewer = Viewer(Places(1), SimpleNamespace(servers=()), Settings())
        make = self.viewer._make

        def take_a_second(now_s: float) -> object:
            for name in taken:
                self.seconds[name] += 1.0
            return make(now_s)

        monkeypatch.setattr(self.viewer, "_make", take_a_second)

    def is_the_same_after(self, pause_s: float) -> bool:
        """Whether who asks for a view after this time gets the last one."""
        view = self.viewer.view()
        self.seconds["monotonic"] += pause_s
        return self.viewer.view() is view


def test_a_view_is_good_for_twenty_times_the_processor_time_that_it_took(monkeypatch):
    clocks = Clocks(monkeypatch, "monotonic", "thread_time")
    assert clocks.is_the_same_after(1.0 / MAKING_PART - 0.1)
    assert not clocks.is_the_same_after(0.2)


def test_one_that_took_long_as_the_process_did_not_run_is_made_anew(monkeypatch):
    assert not Clocks(monkeypatch, "monotonic").is_the_same_after(0.1)
