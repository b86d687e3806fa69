"""Who is let in; all of it is C-level, in the .pxd."""

from typing import final

from gatewayx.core.rates import Rates
from gatewayx.core.shared import Shared
from gatewayx.http.idle import Occupant
from gatewayx.http.limits import Limits

@final
class Entrance:
    """What bounds who is let in, for all connections of a process."""

    def __init__(self, limits: Limits, shared: Shared, rates: Rates) -> None: ...

class Entrant(Occupant):
    """A client's connection, as it counts."""
