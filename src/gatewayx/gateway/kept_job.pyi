"""A job that outlives its request; the .pxd has the C-level interface."""

import enum

from gatewayx.gateway.watching import Watched

class KeptState(enum.IntFlag):
    """What is known of a kept job."""

class KeptJob(Watched):
    """A job that outlives its request."""
