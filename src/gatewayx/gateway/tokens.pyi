"""Whose token a request carries, and what it reaches; the .pxd has the C-level interface."""

from collections.abc import Iterable
from typing import Final, final

from gatewayx.core.metrics import Metrics
from gatewayx.core.rates import Rates
from gatewayx.core.shared import Shared

ATTEMPTS: Final[int]
ATTEMPT_S: Final[int]

@final
class Token:
    """One token's name and reach."""

    name: bytes
    has_secret: bool
    names: tuple[str, ...]
    rate: float
    burst: int
    rate_key: int
    def __init__(
        self,
        name: bytes,
        sha256: bytes | None,
        shared: Shared,
        metrics: Metrics,
        *,
        names: Iterable[str] = (),
        functions: Iterable[bytes] = (),
        rate: float = 0.0,
        burst: int = 0,
        max_jobs: int = 0,
        highest_priority: str = "high",
        background: bool = True,
        expires_s: float | None = None,
    ) -> None: ...

@final
class Tokens:
    """All tokens.

    rates: where those that are not known are counted by address. hide_functions: functions that a token does not reach
    are as if they were none.
    """

    def __init__(self, rates: Rates, tokens: Iterable[Token] = (), *, hide_functions: bool = False) -> None: ...
