from typing import Any

NAMES: tuple[str, ...]
ROW_BYTES: int

class Counters:
    def __init__(self, memory: Any = None) -> None: ...
    def read(self) -> dict[str, int]: ...
