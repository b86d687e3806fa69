"""A line of a batch that is under way; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.exchange import Exchange
from gatewayx.gateway.job_request import JobRequest
from gatewayx.gateway.own_request import OwnRequest
from gatewayx.http.problems import NO_ROOM_FOR_RESULT as NO_ROOM_FOR_RESULT
from gatewayx.http.problems import PROBLEMS as PROBLEMS

PROBLEM_CONTENT_TYPE: bytes

class LineTaker(JobRequest):
    """Takes the answers of lines."""

@final
class LineExchange(Exchange):
    """The job of a line."""

@final
class BatchLine(OwnRequest):
    """A line that is under way."""
