from typing import Any, final

NAMES: tuple[str, ...]
ROW_BYTES: int

@final
class Counters:
    def __init__(self, memory: Any = None) -> None: ...
    def read(self) -> dict[str, int]: ...
