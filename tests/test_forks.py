"""What keeps a sanitized process from being forked while another thread allocates."""

from __future__ import annotations

import hashlib
import threading

from support import forks


def test_it_waits_for_one_that_runs(monkeypatch):
    monkeypatch.setattr(forks, "LOOKS", 1_000_000)
    computed, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        # Without the interpreter's lock, as what allocates beside it.
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 300_000)
        computed.set()
        ended.wait()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        begun.wait()
        forks.until_other_threads_sleep()
        assert computed.is_set()
    finally:
        ended.set()
        thread.join()


def test_it_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(forks, "_sleeps", lambda task: False)
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        forks.until_other_threads_sleep()
    finally:
        ended.set()
        thread.join()


def test_one_that_sleeps_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(forks, "LOOK_S", 1e9)
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    # Others, such as pytest-xdist's, wake when they like.
    sleeps = forks._sleeps
    monkeypatch.setattr(forks, "_sleeps", lambda task: task.name != str(thread.native_id) or sleeps(task))
    while not forks.all_sleep():
        pass
    try:
        forks.until_other_threads_sleep()
    finally:
        ended.set()
        thread.join()
