"""What is told of requests and jobs by function; the .pxd has the C-level interface."""

from typing import Any, final

BOUNDS_S: tuple[float, ...]
RESULTS: tuple[str, ...]
METHODS: tuple[str, ...]
OTHER_NAME: bytes

def metrics_bytes(places: int) -> int:
    """What the memory of so many places takes; what is never counted in it takes no memory."""

def bucket_of(took_ns: int) -> int:
    """Which bucket something counts in that took so long; from 0 on, one for each of BOUNDS_S and the rest."""

def alone() -> Metrics:
    """The metrics of a process that shares them with nobody."""

@final
class Metrics:
    """What the processes of a gateway have counted.

    memory: a writable buffer with metrics_bytes() bytes from `offset` on, zeros at first, aligned to 8 bytes. place: in
    whose row this process counts. Raises BufferError or ValueError if the memory cannot be it.
    """

    functions: Names
    servers: Names
    tokens: Names
    places: int

    def __init__(self, memory: Any, places: int, place: int, offset: int = 0) -> None: ...
    def requests(self) -> list[tuple[str, int, int, int]]:
        """How many requests have ended: (method, outcome by http/outcomes, place of the function, count)."""

    def jobs(self) -> list[tuple[int, int, str, int]]:
        """How many jobs have ended: (place of the function, place of the job server, one of RESULTS, count)."""

    def token_requests(self) -> list[tuple[int, int, int]]:
        """How many requests with a token have ended: (place of the token, outcome by http/outcomes, count)."""

    def token_jobs(self, place: int) -> int:
        """How many jobs are in flight with the tokens at this place."""

    def forget_jobs(self, row: int) -> None:
        """The process that counts in this row has ended, and its jobs with it."""

    def durations(self) -> list[tuple[int, tuple[int, ...], float]]:
        """How long requests took: (place of the function, how many by BOUNDS_S and in all, seconds together)."""

    def job_durations(self) -> list[tuple[int, tuple[int, ...], float]]:
        """The same of the jobs of requests."""

@final
class Names:
    """The names that are told apart, by place."""

    def names(self) -> list[bytes | None]:
        """All names by place, from OTHER_NAME on; None for a place that has none."""

    def claim(self, name: bytes) -> int:
        """Its place, once it was given one if it had none and one is left; 0 if it has none."""

    def find(self, name: bytes) -> int:
        """The place of a name; 0 if it has none."""
