"""How often an address, a token and a function may be asked for; the .pxd has the C-level interface."""

from collections.abc import Iterable
from typing import final

from gatewayx.core.rates import Rates

@final
class FunctionLimit:
    """How often one function may be asked for."""

@final
class RateLimits:
    """The rates of a gateway. address, functions: (so many a second, so many at once)."""

    def __init__(
        self,
        rates: Rates,
        address: tuple[float, int] | None = None,
        functions: Iterable[tuple[bytes, tuple[float, int]]] = (),
    ) -> None: ...
