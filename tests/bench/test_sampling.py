"""Processor time and memory of process trees, as /proc tells them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from gatewayx.bench.errors import RunError, UseError
from gatewayx.bench.sampling import ProcessTree, find_process, slope_per_s
from support.gearmand import die_with_parent
from support.times import WAIT_S
from support.tools import without_sanitizer

MEBIBYTE = 1024 * 1024


class Scripted:
    """A Python process that runs a line when told and then says that it has."""

    def __init__(self, name: str = "python") -> None:
        # It runs whatever line it reads, in a namespace of its own.
        program = "import os,subprocess,sys,threading,time\nfor line in sys.stdin:\n exec(line)\n print(flush=True)"
        self.process = subprocess.Popen(
            [name, "-c", program],
            executable=sys.executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,
            # By its name alone not every Python finds its library.
            env=without_sanitizer() | {"PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}"},
        )
        self.pid = self.process.pid
        try:
            self.run("pass")
        except BaseException:
            self.end()
            raise

    def run(self, line: str) -> None:
        """Run a line of Python to its end."""
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"\n"

    def end(self) -> None:
        """End it; its children end with it only if they want."""
        self.process.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@contextmanager
def scripted(name: str = "python") -> Iterator[Scripted]:
    """A process that is gone at the end."""
    started = Scripted(name)
    try:
        yield started
    finally:
        if started.process.returncode is None:
            started.end()


@pytest.fixture
def process() -> Iterator[Scripted]:
    """A process that does what it is told."""
    with scripted() as started:
        yield started


def until(condition: Callable[[], object]) -> None:
    """Return once it holds."""
    ends_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_s, "the condition never came true"
        time.sleep(0.005)


BEGIN_CHILD = "child = subprocess.Popen(['sleep', '60'])"
END_CHILD = "child.kill(); child.wait()"
# A child that allocates memory when told, and one that has a child of its own.
BEGIN_PYTHON = (
    f"child = subprocess.Popen([{sys.executable!r}, '-c', "
    "'import sys\\nfor line in sys.stdin:\\n exec(line)\\n print(flush=True)'], "
    "stdin=subprocess.PIPE, stdout=subprocess.PIPE)"
)


def tell_child(line: str) -> str:
    """What makes the child run a line."""
    return f"child.stdin.write({line.encode() + bytes((10,))!r}); child.stdin.flush(); child.stdout.readline()"


class TestProcesses:
    def test_process_alone(self, process):
        tree = ProcessTree(process.pid)
        assert tree.last.processes == 1
        assert tree.sample().processes == 1

    def test_children_come_and_go(self, process):
        tree = ProcessTree(process.pid)
        process.run(BEGIN_CHILD)
        assert tree.sample().processes == 2
        process.run(END_CHILD)
        assert tree.sample().processes == 1
        process.run(BEGIN_CHILD)
        assert tree.sample().processes == 2
        process.run(END_CHILD)

    def test_children_of_children(self, process):
        tree = ProcessTree(process.pid)
        process.run(BEGIN_PYTHON)
        process.run(tell_child("import subprocess; child = subprocess.Popen(['sleep', '60'])"))
        assert tree.sample().processes == 3
        process.run(tell_child(END_CHILD))
        assert tree.sample().processes == 2
        process.run(END_CHILD)

    def test_children_that_a_thread_has_started(self, process):
        tree = ProcessTree(process.pid)
        process.run("go = threading.Event()")
        process.run("begin = lambda: (globals().update(child=subprocess.Popen(['sleep', '60'])), go.wait())")
        process.run("thread = threading.Thread(target=begin); thread.start()")
        until(lambda: tree.sample().processes == 2)
        process.run("go.set(); thread.join(); child.kill(); child.wait()")
        assert tree.sample().processes == 1

    def test_others_are_not_counted(self, process):
        with scripted() as other:
            assert ProcessTree(process.pid).sample().processes == 1
            assert ProcessTree(other.pid).sample().processes == 1
            assert ProcessTree(os.getpid()).sample().processes >= 3

    def test_children_that_end_while_they_are_looked_at_are_no_error(self, process):
        process.run("stop = threading.Event()")
        process.run("spin = lambda: [subprocess.run(['true']) for _ in iter(stop.is_set, True)]")
        process.run("threads = [threading.Thread(target=spin) for _ in range(3)]")
        process.run("[thread.start() for thread in threads]")
        tree = ProcessTree(process.pid)
        seen = []

        def looked_often_enough() -> bool:
            sample = tree.sample()
            assert sample is not None
            seen.append(sample.processes)
            return len(seen) >= 100 and max(seen) > 1

        until(looked_often_enough)
        process.run("stop.set(); [thread.join() for thread in threads]")
        assert tree.sample().processes == 1


class TestMemory:
    def test_what_a_process_allocates_and_frees_is_seen(self, process):
        tree = ProcessTree(process.pid)
        before = tree.last.memory_bytes
        assert MEBIBYTE < before < 100 * MEBIBYTE
        process.run("held = bytearray(50 * 1024 * 1024)")
        assert tree.sample().memory_bytes - before == pytest.approx(50 * MEBIBYTE, abs=MEBIBYTE)
        process.run("del held")
        assert tree.sample().memory_bytes - before == pytest.approx(0, abs=MEBIBYTE)

    def test_what_a_child_allocates_is_seen(self, process):
        tree = ProcessTree(process.pid)
        process.run(BEGIN_PYTHON)
        process.run(tell_child("pass"))
        before = tree.sample().memory_bytes
        process.run(tell_child("held = bytearray(50 * 1024 * 1024)"))
        assert tree.sample().memory_bytes - before == pytest.approx(50 * MEBIBYTE, abs=MEBIBYTE)
        process.run(END_CHILD)
        assert tree.sample().memory_bytes < before

    def test_what_two_share_counts_for_neither(self, process):
        process.run("held = bytearray(50 * 1024 * 1024)")
        alone = ProcessTree(process.pid).last.memory_bytes
        # A fork shares every page until one of the two writes.
        process.run("child = os.fork() or time.sleep(60)")
        both = ProcessTree(process.pid).last
        process.run("os.kill(child, 9); os.waitpid(child, 0)")
        assert both.processes == 2
        assert both.memory_bytes < alone - 40 * MEBIBYTE


BURN = "until = time.process_time() + {0}\\nwhile time.process_time() < until: pass"
BURN_LINE = "exec('" + BURN.format(0.2) + "')"
# The scheduler's count of a thread that runs is brought up to date once a tick.
TICK_S = 0.02


class TestProcessorTime:
    def test_what_a_process_uses_is_seen(self, process):
        tree = ProcessTree(process.pid)
        began_s, before_s = time.monotonic(), tree.sample().cpu_s
        process.run(BURN_LINE)
        assert 0.2 - TICK_S < tree.sample().cpu_s - before_s < time.monotonic() - began_s + TICK_S

    def test_who_sleeps_uses_none(self, process):
        tree = ProcessTree(process.pid)

        def used_none() -> bool:
            before_s = tree.sample().cpu_s
            time.sleep(0.1)
            return tree.sample().cpu_s == before_s

        # It may not sleep yet when it has said that its line has run.
        until(used_none)

    def test_what_a_child_used_stays_when_it_has_ended(self, process):
        tree = ProcessTree(process.pid)
        process.run(BEGIN_PYTHON)
        process.run(tell_child("pass"))
        began_s, before_s = time.monotonic(), tree.sample().cpu_s
        process.run(tell_child("import time; " + BURN_LINE))
        used_s = tree.sample().cpu_s - before_s
        assert 0.2 - TICK_S < used_s < time.monotonic() - began_s + TICK_S
        process.run(END_CHILD)
        assert tree.sample().cpu_s - before_s >= used_s

    def test_what_a_thread_used_stays_when_it_has_ended(self, process):
        tree = ProcessTree(process.pid)
        began_s, before_s = time.monotonic(), tree.sample().cpu_s
        process.run("burnt, go = threading.Event(), threading.Event()")
        process.run(f"burn = lambda: ({BURN_LINE}, burnt.set(), go.wait())")
        process.run("thread = threading.Thread(target=burn); thread.start(); burnt.wait()")
        used_s = tree.sample().cpu_s - before_s
        assert 0.2 - TICK_S < used_s < time.monotonic() - began_s + TICK_S
        process.run("go.set(); thread.join()")
        until(lambda: len(os.listdir(f"/proc/{process.pid}/task")) == 1)  # noqa: PTH208
        assert tree.sample().cpu_s - before_s >= used_s


class TestEnded:
    def test_unknown_process_is_an_error(self, process):
        process.end()
        with pytest.raises(RunError, match=f"there is no process {process.pid}"):
            ProcessTree(process.pid)

    def test_ended_process_gives_no_sample_and_the_last_one_stays(self, process):
        tree = ProcessTree(process.pid)
        process.run("held = bytearray(50 * 1024 * 1024)")
        process.process.kill()
        # Not waited for yet.
        until(lambda: tree.sample() is None)
        last = tree.last
        process.end()
        assert tree.sample() is None
        assert tree.last == last

    def test_child_that_nobody_has_waited_for_holds_nothing(self, process):
        process.run(BEGIN_PYTHON)
        process.run(tell_child("held = bytearray(50 * 1024 * 1024)"))
        tree = ProcessTree(process.pid)
        before = tree.last.memory_bytes
        process.run("child.kill()")
        # It is dead a little later; nobody waits for it.
        until(lambda: tree.sample().memory_bytes < before - 50 * MEBIBYTE)
        assert tree.last.processes == 2


@pytest.fixture
def name() -> str:
    """A name that no other process has."""
    return f"sampled-{uuid4().hex}"


class TestFindProcess:
    def test_by_the_first_word_of_its_command_line(self, name):
        with scripted(name) as process:
            assert find_process(name) == process.pid

    def test_by_the_file_name_of_a_path(self, name):
        with subprocess.Popen(
            [f"/usr/bin/{name}", "60"], executable="/bin/sleep", preexec_fn=die_with_parent
        ) as process:
            assert find_process(name) == process.pid
            process.kill()

    def test_by_the_script_that_an_interpreter_runs(self, name, tmp_path):
        script = tmp_path / name
        script.write_text("import sys\nsys.stdin.read()\n")
        with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, preexec_fn=die_with_parent) as process:
            assert find_process(name) == process.pid
            process.kill()

    def test_by_the_name_that_it_has_given_itself(self, process):
        # 15 characters at most.
        name = f"s-{uuid4().hex}"[:15]
        process.run(f"open('/proc/self/comm', 'w').write({name!r})")
        assert find_process(name) == process.pid

    def test_unknown_name(self, name):
        with pytest.raises(UseError, match=f"no process is called '{name}': give --pid"):
            find_process(name)

    def test_part_of_a_name_is_another(self, name):
        with scripted(name + "-2"), pytest.raises(UseError, match="no process is"):
            find_process(name)

    def test_several_of_a_name_are_told(self, name):
        with scripted(name) as one, scripted(name) as other:
            first, second = sorted((one.pid, other.pid))
            with pytest.raises(UseError, match=rf"2 processes are \({first}, {second}\) called"):
                find_process(name)

    def test_children_of_the_same_name_are_part_of_it(self, name):
        with scripted(name) as process:
            process.run(f"children = [subprocess.Popen([{name!r}, '60'], executable='/bin/sleep') for _ in '12']")
            assert find_process(name) == process.pid
            process.run("[(child.kill(), child.wait()) for child in children]")

    def test_descendants_of_the_same_name_are_part_of_it(self, name):
        with scripted(name) as process:
            process.run(BEGIN_PYTHON)
            begin = f"import subprocess; child = subprocess.Popen([{name!r}, '60'], executable='/bin/sleep')"
            process.run(tell_child(begin))
            assert find_process(name) == process.pid
            process.run(tell_child(END_CHILD))
            process.run(END_CHILD)


@pytest.mark.parametrize(
    ("points", "slope"),
    [
        ([], 0),
        ([(1.0, 5.0)], 0),
        ([(1.0, 5.0), (1.0, 7.0)], 0),
        ([(0.0, 0.0), (1.0, 3.0)], 3),
        ([(10.0, 7.0), (12.0, 3.0)], -2),
        ([(float(at_s), 4.0) for at_s in range(10)], 0),
        ([(float(at_s), 1e9 + 2.5 * at_s) for at_s in range(100)], 2.5),
        # Evenly off the line on both sides.
        ([(0.0, 1.0), (0.0, -1.0), (1.0, 3.0), (1.0, 1.0)], 2),
    ],
)
def test_slope_is_that_of_the_line_that_fits_best(points, slope):
    assert slope_per_s(points) == pytest.approx(slope)
