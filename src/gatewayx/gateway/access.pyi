"""Who may ask for a job at all, and who for which; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.origins import Origins
from gatewayx.gateway.rates import RateLimits
from gatewayx.gateway.tokens import Tokens

@final
class Access:
    """Who may. origins: of pages. tokens: None while anybody may. rates: None while nobody is bounded."""

    origins: Origins
    tokens: Tokens | None
    rates: RateLimits | None
    def __init__(
        self, origins: Origins | None = None, tokens: Tokens | None = None, rates: RateLimits | None = None
    ) -> None: ...
    def change(
        self, origins: Origins | None = None, tokens: Tokens | None = None, rates: RateLimits | None = None
    ) -> None:
        """Be as if it had been made with these, for requests that begin from now on."""
