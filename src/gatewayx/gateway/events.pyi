"""What happens to a kept job, as events; the .pxd has the C-level interface."""

class EventLog:
    """The last events of a job."""
