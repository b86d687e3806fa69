"""gatewayx: an HTTP/1.1 front for Gearman job servers."""

__version__ = "0.3.0.dev0"
