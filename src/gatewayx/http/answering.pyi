"""The requests of a client's connection that are under way, and their answers; the .pxd has the C-level interface."""

import logging

from gatewayx.http.arriving import ArrivingClient

logger: logging.Logger
CONTINUE: bytes
PROBLEM_CONTENT_TYPE: bytes

class AnsweringClient(ArrivingClient):
    """A client's connection and its requests under way."""
