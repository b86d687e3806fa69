"""Bounds that hold for a whole gateway; the .pxd has the C-level interface."""

from typing import Any, Final, final

CONNECTIONS: Final[int]
JOBS: Final[int]
FIRST_ACCOUNT: Final[int]
KEPT_JOBS: Final[int]
KEPT_KEYS: Final[int]
KEPT_BYTES: Final[int]
TOTALS: Final[int]
FULL: Final[int]
NO_SLOT: Final[int]
NAMES: tuple[str, ...]

FUNCTION_SLOTS: Final[int]

def address_slots(connections: int) -> int:
    """How large a table is to be for the addresses of so many connections; 0 for none."""

def alone(connections: int = 0) -> Shared:
    """The totals of a process that shares them with nobody.

    connections: of at most how many the addresses may be counted; 0 for none.
    """

def shared_bytes(places: int, function_slots: int, address_slots: int) -> int:
    """What the memory of so many places takes, with tables of so many functions and addresses."""

@final
class Shared:
    """What the processes of a gateway have taken of its bounds.

    memory: a writable buffer with shared_bytes() bytes from `offset` on, zeros at first, aligned to 64 bytes. place:
    whose shares this process changes. Raises BufferError or ValueError if the memory cannot be it.
    """

    functions: KeyTable
    addresses: KeyTable
    places: int
    place: int

    def __init__(
        self, memory: Any, places: int, place: int, function_slots: int, address_slots: int, offset: int = 0
    ) -> None: ...
    def take(self, which: int, amount: int, bound: int) -> bool: ...
    def give(self, which: int, amount: int) -> None: ...
    def taken(self, which: int) -> int: ...
    def want_place(self) -> None: ...
    def take_want(self) -> bool: ...
    def forget_wants(self) -> None: ...
    def read(self) -> dict[str, int]:
        """What all places together have taken of each total."""
    def give_back(self, place: int) -> int:
        """What the process at a place has taken, which has ended; returns what it was about to change, 0 for nothing.

        For the master alone. What is returned is for `reconcile`.
        """
    def reconcile(self, intent: int) -> bool:
        """Correct the word that a process was about to change when it died; False if it must be tried again later."""

@final
class KeyTable:
    """One count for each of many keys; the .pxd says what each method does."""

    def take(self, hashed: int, bound: int) -> int: ...
    def give(self, slot: int) -> None: ...
    def taken(self, hashed: int) -> int: ...
    def keys(self) -> int:
        """How many keys have a count."""
