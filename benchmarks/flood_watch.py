"""Beside a measurement: a flood, the memory of the process that is flooded, and clients that come meanwhile."""

import http.client
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support import (
    HOST,
    BenchmarkError,
    Process,
    run_tag,
)

SAMPLE_S = 0.1
NEWCOMER_INTERVAL_S = 0.02


class Sampler:
    """Private memory of a process every SAMPLE_S seconds while a `with` block runs."""

    def __init__(self, process: Process) -> None:
        self.samples: list[tuple[float, int]] = []
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        began_s = time.monotonic()
        while not self._ended.wait(SAMPLE_S):
            self.samples.append((time.monotonic() - began_s, self._process.memory().private_bytes))

    def peak_bytes(self) -> int:
        """The highest sample."""
        return max(private for _, private in self.samples)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()


class Flood:
    """One run of flood.c beside whatever the `with` block does; `report` is what it printed."""

    def __init__(
        self,
        program: Path,
        port: int,
        kind: str,
        connections: int,
        seconds: float,
        rate: float = 0,
        count: int = 0,
        sent: bytes = b"",
    ) -> None:
        arguments = [str(port), kind, str(connections), str(rate), str(count), str(seconds)]
        self._command = [str(program), *arguments]
        self._sent = sent
        self.seconds = seconds
        self.report: dict[str, Any] = {}

    def __enter__(self) -> "Flood":
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(self._sent)
        self._process.stdin.close()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdout is not None
        output = self._process.stdout.read()
        self._process.wait(self.seconds + 60)
        if self._process.returncode:
            raise BenchmarkError(f"the flood ended with status {self._process.returncode}")
        self.report = json.loads(output)


class Newcomers:
    """Good clients that come one after the other, each over a connection of its own, while a `with` block runs.

    requests: (path, bytes of the body) in turn. `answers` counts statuses, and what else happened by its name.
    """

    def __init__(self, port: int, requests: Sequence[tuple[str, int]]) -> None:
        self.answers: Counter[str] = Counter()
        self._port = port
        self._requests = requests
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(NEWCOMER_INTERVAL_S):
            path, body_bytes = self._requests[number % len(self._requests)]
            number += 1
            # gearmand's plugin aside nobody merges them, yet no two are alike.
            body = run_tag().encode().ljust(body_bytes, b"x")[:body_bytes]
            client = http.client.HTTPConnection(HOST, self._port, timeout=30)
            try:
                client.request("POST", path, body)
                answer = client.getresponse()
                answer.read()
                self.answers[f"{answer.status} {path} {body_bytes}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.answers[f"{type(error).__name__} {path} {body_bytes}"] += 1
            finally:
                client.close()

    def refused(self) -> int:
        """How many got anything but 200."""
        return sum(count for answer, count in self.answers.items() if not answer.startswith("200 "))

    def __enter__(self) -> "Newcomers":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
