"""gatewayx: an HTTP/1.1 front for Gearman job servers."""

__version__ = "0.2.0"
