"""What the settings of who may ask become in a process that serves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gatewayx.gateway.rates import RateLimits
from gatewayx.gateway.tokens import Token, Tokens
from gatewayx.http.forwarded import TrustedProxies

if TYPE_CHECKING:
    from gatewayx.config.settings import Settings
    from gatewayx.config.tokens import TokenEntry
    from gatewayx.core.metrics import Metrics
    from gatewayx.core.rates import Rates
    from gatewayx.core.shared import Shared


def made_tokens(
    settings: Settings, entries: Iterable[TokenEntry], shared: Shared, metrics: Metrics, rates: Rates
) -> Tokens:
    """The tokens of a file.

    shared: where their jobs are counted. metrics: where they are told of. rates: where unknown ones are
    counted.
    """
    made = []
    for entry in entries:
        made.append(
            Token(
                entry.name.encode(),
                entry.sha256,
                shared,
                metrics,
                names=entry.san,
                functions=[function.encode() for function in entry.functions],
                rate=entry.rate,
                burst=entry.burst,
                max_jobs=entry.max_jobs,
                highest_priority=entry.highest_priority,
                background=entry.background,
                expires_s=entry.expires_s,
            )
        )
    return Tokens(rates, made, hide_functions=settings.hide_functions)


def trusted_proxies(settings: Settings) -> TrustedProxies | None:
    """Whose word on their clients is taken; None for nobody's."""
    return TrustedProxies(settings.trusted_proxy, settings.client_address) if settings.trusted_proxy else None


def rate_limits(settings: Settings, entries: Iterable[TokenEntry], rates: Rates) -> RateLimits | None:
    """What bounds the rates of addresses, functions and tokens; None if nothing does. rates: where they are counted."""
    if settings.rate is None and not settings.function_rate and not any(entry.rate for entry in entries):
        return None
    return RateLimits(rates, settings.rate, [(bound.name.encode(), bound.rate) for bound in settings.function_rate])
