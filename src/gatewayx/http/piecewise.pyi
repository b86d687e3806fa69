"""Answers that come in pieces, with a length or without one; the .pxd has the C-level interface."""

from gatewayx.http.answering import AnsweringClient

class PiecewiseClient(AnsweringClient):
    """A client's connection and its answers that come in pieces."""
